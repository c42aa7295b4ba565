"""Hypothesis strategies: budgets, costs, prefixes, requests, faults and whole programs of verbs."""

from __future__ import annotations

from typing import Any

try:
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover
    raise ImportError("outthink.testing.strategies needs hypothesis: pip install 'outthink[dev]'") from error

from ..core.budget import PICO, Budget, Limit
from ..core.cost import UNITS, Cost
from ..core.refs import Prefix
from ..core.request import Call, Embed, Sample, Score
from .faulty import Faults
from .programs import Node, program, small_budget
from .scripted import job

MODELS = ("big", "small", "judge")


def costs(*, models: tuple[str, ...] = MODELS, most: int = 1000) -> st.SearchStrategy[Cost]:
    """Costs over a few models and all units; the empty cost too."""
    units = st.dictionaries(st.sampled_from(sorted(UNITS)), st.integers(0, most), max_size=4)
    return st.builds(Cost, st.dictionaries(st.sampled_from(models), units, max_size=len(models)))


def limits(kind: str, *, most: int) -> st.SearchStrategy[Limit]:
    """Limits of one kind; dollars in picodollars."""
    top = PICO * most if kind == "dollars" else most
    return st.builds(Limit, st.just(kind), st.integers(0, top))


def budgets(*, kinds: tuple[str, ...] = ("tokens", "output", "calls"), most: int = 1000) -> st.SearchStrategy[Budget]:
    """Budgets that limit some of `kinds`, sometimes depth; no limit at all too."""

    def build(chosen: tuple[Limit, ...], depth: int | None) -> Budget:
        return Budget(chosen, depth=depth)

    some = st.lists(st.sampled_from(kinds), unique=True).flatmap(
        lambda names: st.tuples(*(limits(name, most=most) for name in names))
    )
    return st.builds(build, some, st.none() | st.integers(0, 50))


def prefixes() -> st.SearchStrategy[Prefix]:
    """Chains of up to four pieces, any text, with and without token ids."""
    piece = st.tuples(st.text(max_size=8), st.none() | st.lists(st.integers(0, 99), max_size=4).map(tuple))

    def build(pieces: list[tuple[str, Any]]) -> Prefix:
        (text, tokens), *rest = pieces
        prefix = Prefix(text, tokens=tokens)
        for text, tokens in rest:
            prefix = prefix.extend(text, tokens=tokens)
        return prefix

    return st.lists(piece, min_size=1, max_size=4).map(build)


def requests(*, models: tuple[str, ...] = MODELS) -> st.SearchStrategy[Any]:
    """Requests of the kinds that any trace must be able to write and read again."""
    model = st.sampled_from(models)
    samples = st.builds(
        Sample, prefixes(), model, st.integers(0, 2**63 - 1), st.none() | st.integers(0, 64),
        at_least=st.none() | st.integers(1, 8), temperature=st.floats(0, 2),
        stop=st.lists(st.text(min_size=1)).map(tuple), logprobs=st.booleans(),
    )  # fmt: skip
    scores = st.builds(Score, prefixes(), model, st.sampled_from(["reward", "logprob"]), st.none() | st.just("\n"))
    return samples | scores | st.builds(Embed, st.text(), model) | st.builds(Call, st.text(), st.text())


def jobs(*, most: int = 20) -> st.SearchStrategy[Any]:
    """Requests for the scripted backend whose cost is at most their bound."""
    pairs = st.integers(0, most).flatmap(lambda worst: st.tuples(st.just(worst), st.integers(0, worst)))
    return st.builds(
        lambda pair, steps, late: job(*pair, steps=steps, late=late), pairs, st.integers(0, 4), st.integers(0, 3)
    )


def faults() -> st.SearchStrategy[Faults]:
    """Plans of misbehaviour; the calm one too."""
    chance = st.sampled_from([0.0, 0.0, 0.05, 0.12])
    return st.builds(
        Faults, refuse=chance, busy=chance, timeout=chance, empty=chance, short=chance, silent=chance, over=chance,
        late=st.integers(0, 3), shuffle=st.booleans(),
    )  # fmt: skip


def programs(*, depth: int = 3, meets: bool = False) -> st.SearchStrategy[Node]:
    """Nested programs of verbs for `programs.Player`."""
    return st.randoms(use_true_random=False).map(lambda rng: program(rng, depth=depth, meets=meets))


def small_budgets() -> st.SearchStrategy[Budget]:
    """Budgets that such programs can exhaust."""
    return st.randoms(use_true_random=False).map(small_budget)
