"""outthink demo"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Watch a small model get better with its budget.")
@click.option("--limit", default=60, show_default=True, type=click.IntRange(min=1), help="Held-out problems.")
@click.option("-o", "out", default=Path("outputs/demo"), show_default=True, metavar="DIR",
              type=click.Path(path_type=Path, file_okay=False), help="Folder of the report; replaced.")  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def demo(limit: int, out: Path, seed: int, as_json: bool) -> int:
    """Compare eight ways of spending on held-out word problems, with the embedded model, at 128 to 4k tokens each."""
    from outthink.cli.compare import finish
    from outthink.cli.live import comparing
    from outthink.experiments.demo import demo as run_demo

    with comparing() as watch:
        comparison = run_demo(limit=limit, out=out, watch=watch, seed=seed)
    return finish(comparison, as_json=as_json, out=out)
