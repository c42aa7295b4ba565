"""OpenAI-compatible servers: `OpenAI` is the backend, `Abilities` what a server can do, `PRESETS` known ones."""

from .abilities import PRESETS, Abilities
from .backend import OpenAI
from .connection import Timeouts
from .probe import Probed

__all__ = ["PRESETS", "Abilities", "OpenAI", "Probed", "Timeouts"]
