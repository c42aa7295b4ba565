"""Laws of coverage."""

from __future__ import annotations

import math
import sys
from random import Random

import pytest

from outthink.analysis.coverage import BetaLaw, fit_beta_law, fit_power_law
from outthink.analysis.estimators import coverage, spaced
from outthink.core.errors import InvalidInput


def test_an_exact_power_law_is_found():
    ks = spaced(1000)
    law = fit_power_law(ks, [math.exp(-1.83 * k**-0.448) for k in ks])
    assert (law.a, law.b) == pytest.approx((-1.83, -0.448), rel=1e-4) and law.residual < 1e-5
    assert law(100) == pytest.approx(math.exp(-1.83 * 100**-0.448), rel=1e-4)


def test_both_laws_describe_and_extrapolate_problems_of_beta_difficulty():
    rng = Random(0)
    rates = [rng.betavariate(0.5, 1.5) for _ in range(400)]
    counts = [(100, sum(rng.random() < p for _ in range(100))) for p in rates]
    ks = spaced(100)
    power = fit_power_law(ks, [coverage(counts, k) for k in ks])
    assert power.residual < 0.03
    beta = fit_beta_law(counts)
    assert (beta.alpha, beta.beta) == pytest.approx((0.5, 1.5), rel=0.25)
    truth = sum(1 - (1 - p) ** 1000 for p in rates) / 400
    assert beta(1000) == pytest.approx(truth, abs=0.03)


def test_the_beta_law_of_one_sample_is_the_mean():
    assert BetaLaw(2.0, 3.0)(1) == pytest.approx(0.4)


def test_too_few_points_are_refused():
    with pytest.raises(InvalidInput, match="three"):
        fit_power_law([1, 2], [0.1, 0.2])
    with pytest.raises(InvalidInput, match="no problems"):
        fit_beta_law([])


def test_a_missing_scipy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(InvalidInput, match=r"outthink\[analysis\]"):
        fit_power_law([1, 2, 3], [0.1, 0.2, 0.3])
