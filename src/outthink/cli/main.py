"""The entry point: commands, loaded when they are called, and errors as one paragraph with the right exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from outthink.cli.errors import FAILURE, INTERRUPTED, USAGE, paragraph, status_of

COMMANDS = {
    "solve": "Answer one prompt within a budget.",
    "compare": "Compare methods on a task at equal budgets.",
    "papers": "List the methods, or say everything about one.",
    "models": "List the models, or say what a checkpoint folder needs.",
    "show": "Show where the tokens of a finished run went.",
    "demo": "Watch a small model get better with its budget.",
}


class Commands(click.Group):
    """Commands by name; the module of a command is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return getattr(import_module(f"outthink.cli.{name}"), name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"unknown command {args[0]!r}.{hint} Known: {', '.join(COMMANDS)}.", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="outthink", message="outthink %(version)s")
def cli() -> None:
    """Spend exactly this much, get the best answer that any published method can give you for it, and see where every
    token went.

    \b
      outthink demo
      outthink solve "PROMPT" --method rebase --budget "2k tokens"
      outthink compare word_problems --methods greedy,majority,rebase --budgets 256,1k,4k --limit 64 -o outputs/mine
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 after a failure, 2 after a usage error, 130 after Ctrl-C."""
    try:
        code = cli.main(None if arguments is None else list(arguments), prog_name="outthink", standalone_mode=False)
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = USAGE
    except click.ClickException as error:
        where = f" Try `{error.ctx.command_path} --help`." if isinstance(error, click.UsageError) and error.ctx else ""
        paragraph(f"{error.format_message().rstrip('.')}.{where}")
        code = USAGE if isinstance(error, click.UsageError) else error.exit_code
    except (KeyboardInterrupt, click.Abort):
        paragraph("interrupted")
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; say nothing more
        code = FAILURE
    except Exception as error:
        status = status_of(error)
        if status is None:
            raise
        paragraph(str(error))
        code = status
    sys.exit(code if isinstance(code, int) else 0)
