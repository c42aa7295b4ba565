"""What can be loaded: the models that come with Outthink, how to name others, and what a folder would need."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import InvalidInput
from ..engine.config import ARCHITECTURES, Config, read_config
from ..engine.errors import CheckpointError
from ..engine.size import KINDS, kv_bytes, parameters, weight_bytes
from .open import EMBEDDED


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model that comes with Outthink.

    what: the first sentence of its card. context: the longest prompt and text together, in tokens.
    """

    name: str
    params: int
    context: int
    rewards: bool
    what: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What is known of a checkpoint folder.

    config: None where config.json cannot be used. problem: why it cannot be loaded; None if it can.
    chat: whether it has a chat template.
    weights, kv: bytes of all weights, and of the keys and values of one token, by what the engine computes in.
    """

    path: Path
    config: Config | None
    problem: str | None
    chat: bool = False
    weights: dict[str, int] = field(default_factory=dict)
    kv: dict[str, int] = field(default_factory=dict)

    @property
    def loadable(self) -> bool:
        return self.problem is None


def shipped() -> list[Shipped]:
    """Return the models that come with Outthink, by name. Needs no torch."""
    folders = sorted(path.parent for path in EMBEDDED.glob("*/config.json"))
    return [_shipped(folder) for folder in folders]


def others() -> dict[str, str]:
    """Return how models that do not come with Outthink are named, and what each name stands for."""
    from .toy import WORLDS

    return {
        "engine/PATH": "a checkpoint folder in the Hugging Face format: " + ", ".join(ARCHITECTURES),
        "openai/NAME": "a model of an OpenAI-compatible server (OPENAI_BASE_URL, OPENAI_API_KEY)",
        "toy/NAME": "a model of closed forms, for tests and for a first look: " + ", ".join(sorted(WORLDS)),
    }


def inspect(path: str | Path) -> Folder:
    """Return what is known of the checkpoint in a folder: whether it is whole, and what it would need.

    Files are checked as they are for loading (the header of every shard, every shape), but no weight is read.

    Raises InvalidInput if there is no such folder, or if the extra is missing that reads checkpoints.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InvalidInput(f"no folder {str(folder)!r}; give one that holds config.json, safetensors, tokenizer.json")
    try:
        from ..engine.chat import has_template
        from ..engine.checkpoint import load_checkpoint
    except ImportError as error:
        raise InvalidInput(
            f"checking {folder} needs {error.name}, which is not installed: pip install 'outthink[engine]'"
        ) from None
    config: Config | None = None
    problem: str | None = None
    try:
        config = read_config(folder)
        load_checkpoint(folder)
    except CheckpointError as error:
        problem = str(error)
    if config is None:
        return Folder(folder, None, problem)
    weights = {kind: weight_bytes(config, kind) for kind in KINDS}
    kv = {kind: kv_bytes(config, kind) for kind in KINDS}
    return Folder(folder, config, problem, has_template(folder), weights, kv)


def _shipped(folder: Path) -> Shipped:
    config = read_config(folder)
    card = folder / "README.md"
    body = card.read_text("utf-8").partition("\n\n")[2] if card.is_file() else ""
    what = " ".join(body.partition("\n\n")[0].split()).replace("`", "").replace("**", "")
    return Shipped(
        name=f"embedded/{folder.name}",
        params=parameters(config),
        context=config.max_position_embeddings,
        rewards=config.is_reward_model,
        what=what.partition(". ")[0].rstrip("."),
    )
