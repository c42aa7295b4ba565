"""The laws as tests, for authors of methods, spaces, verifiers and backends. Three lines:

    from outthink.testing import conformance
    case = conformance.MethodCase(lambda seed: mine(space, verifier, n=4, seed=seed), backends, answer=space.answer)
    test_my_method = conformance.laws(case)

`laws(case)` is a pytest test, one for each law; `LAWS[MethodCase]` and so on are the laws themselves (functions of a
case that raise AssertionError), for those who write `@pytest.mark.parametrize("law", ...)` themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .backend_case import BackendCase
from .backends import BACKEND_LAWS
from .methods import METHOD_LAWS
from .play import MethodCase
from .spaces import SPACE_LAWS, SpaceCase
from .verifiers import VERIFIER_LAWS, VerifierCase

Law = Callable[[Any], None]
LAWS: Mapping[type, tuple[Law, ...]] = {
    MethodCase: METHOD_LAWS,
    SpaceCase: SPACE_LAWS,
    VerifierCase: VERIFIER_LAWS,
    BackendCase: BACKEND_LAWS,
}


def laws(case: Any, *, skip: Mapping[str, str] | None = None) -> Callable[..., None]:
    """Return a pytest test that holds `case` to every law of its kind.

    skip: law name -> why it does not hold here; such laws are expected to fail, and a test fails if they do not.
    Raises KeyError for the name of no law.
    """
    import pytest

    all_laws = LAWS[type(case)]
    known = {law.__name__ for law in all_laws}
    reasons = dict(skip or {})
    if reasons.keys() - known:
        raise KeyError(f"no such laws: {sorted(reasons.keys() - known)}; known: {sorted(known)}")
    rows = [
        pytest.param(
            law, id=law.__name__,
            marks=[pytest.mark.xfail(reason=reasons[law.__name__], strict=True)] if law.__name__ in reasons else [],
        )
        for law in all_laws
    ]  # fmt: skip

    @pytest.mark.parametrize("law", rows)
    def test_law(law: Law) -> None:
        law(case)

    return test_law


__all__ = [
    "BACKEND_LAWS", "LAWS", "METHOD_LAWS", "SPACE_LAWS", "VERIFIER_LAWS", "BackendCase", "MethodCase", "SpaceCase",
    "VerifierCase", "laws",
]  # fmt: skip
