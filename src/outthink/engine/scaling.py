"""Rotary positions as a config.json describes them, in its old form (`rope_theta`, `rope_scaling`) and its new one
(`rope_parameters`).  What the numbers mean is in `rope.py`; here they are read and written, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outthink.engine.errors import CheckpointError

KINDS = ("linear", "dynamic", "llama3", "yarn")
_NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_DEFAULT_THETA = 10000.0


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the rotations of a model were changed after its first training, for a longer context.

    kind: one of `KINDS`.
    factor: how many times longer the context became.
    original_max_position_embeddings: the context before; read by llama3 and yarn.
    low_freq_factor, high_freq_factor: of llama3: wavelengths above original/low are scaled, below original/high kept.
    attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, truncate: of yarn, as in transformers.
    """

    kind: str
    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return what config.json says of it, without theta."""
        data: dict[str, Any] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind in ("llama3", "yarn"):
            data["original_max_position_embeddings"] = self.original_max_position_embeddings
        names = ("low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale",
                 "mscale_all_dim")  # fmt: skip
        data |= {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return data if self.truncate else data | {"truncate": False}


def read_rope(data: Mapping[str, Any], *, context: int, source: str) -> tuple[float, RopeScaling | None]:
    """Return (theta, scaling) of the parsed config.json `data`; scaling is None for plain rotary positions.

    context: max_position_embeddings, for configs that do not say what it was before.

    Raises CheckpointError, naming `source`, for a kind that is not supported, for rotations of a part of each head or
    of their own for each kind of layer, and for missing numbers.
    """
    # A config that has both was written for readers of either form; transformers takes the old one then.
    rope = data.get("rope_scaling") or data.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise CheckpointError(f"{source}: rotary positions that differ between layers are not supported")
    partial = rope.get("partial_rotary_factor", data.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise CheckpointError(f"{source}: partial_rotary_factor {partial} is not supported; whole heads are rotated")
    theta = float(rope.get("rope_theta") or data.get("rope_theta") or _DEFAULT_THETA)
    kind = rope.get("rope_type", rope.get("type", "default")) or "default"
    if kind == "default":
        return theta, None
    if kind not in KINDS:
        raise CheckpointError(f"{source}: rope_type {kind!r} is not supported; use default, {', '.join(KINDS)}")
    missing = [name for name in _NEEDED[kind] if not isinstance(rope.get(name), int | float)]
    if missing:
        raise CheckpointError(
            f"{source}: rope_type {kind!r} needs {', '.join(missing)} (numbers); copy the model's own config.json"
        )
    names = RopeScaling.__dataclass_fields__.keys() - {"kind", "original_max_position_embeddings"}
    given = {name: rope[name] for name in names if rope.get(name) is not None}
    original = data.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings") or context
    return theta, RopeScaling(kind, original_max_position_embeddings=original, **given)
