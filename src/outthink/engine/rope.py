"""Rotary positions: how fast each pair of channels turns, plain or scaled for a longer context."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from outthink.engine.config import Config
from outthink.engine.scaling import RopeScaling

_BETA_FAST, _BETA_SLOW = 32.0, 1.0  # turns within the old context: YaRN's own choice (Peng et al. 2023, section 3.2)


def frequencies(config: Config) -> tuple[Tensor, float]:
    """Return (inverse frequencies [head_dim / 2], float32, attention factor).

    A query or key at position p has its pair of channels (i, i + head_dim / 2) turned by p * frequencies[i]; cosines
    and sines of the turns are multiplied by the factor, which is 1 except for yarn.

    Dynamic scaling turns faster the longer a text is beyond `max_position_embeddings`, and as plain ones up to there;
    the engine goes no further, so these are the plain frequencies.

    Sources: linear: kaiokendev 2023; llama3: Llama 3.1's released code; yarn: Peng et al. 2023, equations 17 to 22.
    Bit for bit those of transformers 5.
    """
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    periods = config.rope_theta**steps
    plain = 1.0 / periods
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "dynamic":
        return plain, 1.0
    if scaling.kind == "linear":
        return plain / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(plain, scaling), 1.0
    return _yarn(periods, scaling, config), _attention_factor(scaling)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Keep short wavelengths, scale long ones, go smoothly from one to the other between."""
    assert scaling.low_freq_factor is not None and scaling.high_freq_factor is not None
    low, high, old = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_max_position_embeddings
    wavelengths = 2 * math.pi / plain
    share = (old / wavelengths - low) / (high - low)
    between = (1 - share) * plain / scaling.factor + share * plain
    long, short = wavelengths > old / low, wavelengths < old / high
    return torch.where(long, plain / scaling.factor, torch.where(short, plain, between))


def _yarn(periods: Tensor, scaling: RopeScaling, config: Config) -> Tensor:
    """Keep channels that turn often within the old context, scale those that hardly turn, a ramp between."""
    width, old = config.head_dim, scaling.original_max_position_embeddings

    def channel(turns: float) -> float:
        return width * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    first, last = channel(scaling.beta_fast or _BETA_FAST), channel(scaling.beta_slow or _BETA_SLOW)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    ramp = (torch.arange(width // 2, dtype=torch.float32) - first) / (last - first or 0.001)
    kept = 1 - ramp.clamp(0, 1)
    return 1.0 / (scaling.factor * periods) * (1 - kept) + 1.0 / periods * kept


def _attention_factor(scaling: RopeScaling) -> float:
    def grown(scale: float | None) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * (scale or 1.0) * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return grown(scaling.mscale) / grown(scaling.mscale_all_dim)
    return grown(1.0)
