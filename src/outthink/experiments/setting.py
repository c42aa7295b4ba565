"""From names to something that can run: models opened, a verifier chosen, needs checked before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from outthink.core.backend import Backend
from outthink.core.budget import Card
from outthink.core.errors import InvalidInput, Unsupported, unknown
from outthink.core.runtime import Runtime
from outthink.experiments.answers import final_answer
from outthink.models.function import Function, Judge
from outthink.models.open import LOCAL, card_of, open_model
from outthink.papers import load
from outthink.papers.solver import Models, Solver

DEFAULT_MODEL = "embedded/reasoner"
DEFAULT_VERIFIER = "embedded/reasoner-prm"


Recipe = Callable[..., Solver]
"""What makes a Solver of `Models`: `solver` of a paper's file, or a function of your own."""


@dataclass(slots=True)
class Setting:
    """Open models under their names. Use it in a `with`, or close it.

    verifier: the name of the reward model, None if there is none. knobs: max_tokens, temperature, ... of every sample.
    dtype: what engines compute in, None for the default.
    """

    model: str
    verifier: str | None
    backends: dict[str, Backend]
    cards: Mapping[str, Card]
    knobs: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None

    def runtime(self, **other: Any) -> Runtime:
        """Return a new runtime over these models."""
        return Runtime(self.backends, cards=self.cards, **other)

    def models(self, answer_of: Callable[[str], str | None] | None = None, *, policy: str | None = None) -> Models:
        """Return what a recipe is made from; `answer_of` finds the answer in a completion."""
        answer_of = answer_of or default_answer(self.model)
        ending = "\n" if self.model.startswith("embedded/") else ""
        given = {"ending": ending, **self.knobs}
        return Models(policy=policy or self.model, reward=self.verifier, answer_of=answer_of, **given)

    def solver(
        self, method: str | Solver | Recipe, *, answer_of: Callable[[str], str | None] | None = None,
        policy: str | None = None, **knobs: Any,
    ) -> Solver:  # fmt: skip
        """Return the solver of a method's name or recipe (or the solver given), checked against what the models can do.

        policy: another of the setting's models to sample from than `model` (a pool of its samples).
        knobs: the method's.
        Raises InvalidInput for an unknown name or knob, Unsupported if the models lack what it needs.
        """
        if isinstance(method, Solver):
            solver = method
        elif not isinstance(method, str):
            solver = method(self.models(answer_of, policy=policy), **knobs)
        else:
            entry = load(method)
            if entry.solver is None:
                raise InvalidInput(
                    f"{entry.name} does not answer prompts; `outthink papers {entry.name}` says what it does"
                )
            if "score" in entry.needs and self.verifier is None:
                raise Unsupported(_no_verifier(entry.name, self.model))
            try:
                solver = entry.solver(self.models(answer_of, policy=policy), **knobs)
            except TypeError as error:
                if not knobs:
                    raise
                raise InvalidInput(f"{entry.name} does not take {', '.join(knobs)}: {error}") from None
        self._check(solver, policy or self.model)
        return solver

    def _check(self, solver: Solver, policy: str) -> None:
        if "score" in solver.needs and self.verifier is None:
            raise Unsupported(_no_verifier(solver.name, self.model))
        have = self.backends[policy].capabilities
        missing = sorted(solver.needs - {"score"} - have)
        if "sample" in missing:
            raise Unsupported(
                f"{policy} gives scores and writes no text; nothing was spent. Give it as --verifier, and a model that "
                f"writes as --model"
            )
        if missing:
            raise Unsupported(
                f"{solver.name} needs {', '.join(missing)}, which {policy} does not offer; nothing was spent. "
                f"Models of the engine (engine/PATH, embedded/reasoner) offer more than servers do"
            )
        if "score" in solver.needs and self.verifier in self.backends:
            if "score" not in self.backends[self.verifier].capabilities:
                raise Unsupported(f"{self.verifier} gives no scores, which {solver.name} needs; name a reward model")

    @property
    def described(self) -> dict[str, Any]:
        """What results depend on, besides the models."""
        return {**self.knobs, **({"dtype": self.dtype} if self.dtype is not None else {})}

    def close(self) -> None:
        """Let go of every model."""
        for backend in {id(backend): backend for backend in self.backends.values()}.values():
            backend.close()

    def __enter__(self) -> Setting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_setting(
    model: str = DEFAULT_MODEL, *, verifier: str | Judge | None = None, base_url: str | None = None,
    api_key: str | None = None, cards: Mapping[str, Card] | None = None, deterministic: bool = False,
    replicas: int | None = None, kv_bytes: int | None = None, dtype: str | None = None, **knobs: Any,
) -> Setting:  # fmt: skip
    """Open `model` and its verifier.

    cards: prices and sizes by model name, for budgets in dollars or FLOPs; what a card leaves out is as known.

    verifier: the name of a reward model, or a function (prompt, text) -> number in [0, 1]; None takes the embedded
      reward model for embedded models, and none for others.
    replicas, kv_bytes, dtype: of the engine, for the model and for a verifier that is one (`open_model`).
    knobs: max_tokens, temperature, top_p, min_p, max_steps of every sample.
    """
    wrong = sorted(knobs.keys() - {"max_tokens", "temperature", "top_p", "min_p", "max_steps", "step"})
    if wrong:
        raise InvalidInput(
            f"unknown setting {', '.join(wrong)}; there are max_tokens, temperature, top_p, min_p, max_steps"
        )
    options: dict[str, Any] = {"replicas": replicas, "kv_bytes": kv_bytes, "dtype": dtype}
    engine = {name: value for name, value in options.items() if value is not None}
    if engine and not _local(model):
        raise InvalidInput(f"{model}: {', '.join(engine)} are for engines (embedded/NAME, engine/PATH); leave them out")
    backends: dict[str, Backend] = {}
    known: dict[str, Card] = {}
    try:
        backends[model] = open_model(model, base_url=base_url, api_key=api_key, deterministic=deterministic, **engine)
        known[model] = card_of(model)
        name = verifier if isinstance(verifier, str) else None
        if callable(verifier):
            name = f"function/{getattr(verifier, '__name__', 'verifier')}"
            backends[name], known[name] = Function(verifier, name=name), Card(prices={}, params=0)
        elif name is None:
            name = default_verifier(model)
        if name is not None and name not in backends:
            more = engine if _local(name) else {}
            backends[name] = open_model(name, base_url=base_url, api_key=api_key, deterministic=deterministic, **more)
            known[name] = card_of(name)
    except BaseException:
        for backend in backends.values():
            backend.close()
        raise
    return Setting(model, name, backends, _merged(known, cards or {}), knobs, dtype)


def _local(model: str) -> bool:
    return model.split("/")[0] in LOCAL


def _merged(known: Mapping[str, Card], given: Mapping[str, Card]) -> dict[str, Card]:
    """Return the cards of the models in use; raises InvalidInput for a card of another model."""
    strange = next((name for name in given if name not in known), None)
    if strange is not None:
        raise unknown("model on a price card", strange, known)
    return {
        name: replace(card, prices=given[name].prices if given[name].prices is not None else card.prices,
                      params=given[name].params or card.params, attention=given[name].attention or card.attention)
        if name in given else card
        for name, card in known.items()
    }  # fmt: skip


def default_verifier(model: str) -> str | None:
    """Return the reward model that goes with `model`, None if there is none."""
    if model.startswith("toy/"):
        return model
    return DEFAULT_VERIFIER if model.startswith("embedded/") else None


def default_answer(model: str) -> Callable[[str], str | None]:
    """Return how the answer is found in what `model` writes."""
    if model.startswith("embedded/"):
        from outthink.tasks.word_problems import answer_of

        return answer_of
    if model.startswith("toy/"):
        from outthink.models.toy import toy_answer

        return toy_answer
    return final_answer


def _no_verifier(method: str, model: str) -> str:
    return (f"{method} needs a verifier (a reward model), and none is known for {model}; nothing was spent. Add "
            f"--verifier NAME (such as {DEFAULT_VERIFIER}), or take a method without one (majority)")  # fmt: skip
