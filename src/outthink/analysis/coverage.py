"""Laws of coverage: how the share of solved problems grows with the number of samples (needs scipy)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """coverage(k) = exp(a * k**b), a < 0, b < 0; `residual` is the largest absolute error on the points fitted."""

    a: float
    b: float
    residual: float

    def __call__(self, k: float) -> float:
        return math.exp(self.a * k**self.b)


@dataclass(frozen=True, slots=True)
class BetaLaw:
    """Success rates of problems are Beta(alpha, beta): coverage(k) = 1 - B(alpha, beta + k) / B(alpha, beta)."""

    alpha: float
    beta: float

    def __call__(self, k: float) -> float:
        log = math.lgamma
        a, b = self.alpha, self.beta
        return 1 - math.exp(log(b + k) + log(a + b) - log(a + b + k) - log(b))


def fit_power_law(ks: Sequence[float], coverages: Sequence[float]) -> PowerLaw:
    """Return the exponentiated power law nearest to these points, by least squares on coverage.

    ks rise from 1; coverages are in [0, 1]. Source: Brown et al. 2024, section 3: log coverage = a * k**b.
    """
    if len(ks) != len(coverages) or len(ks) < 3:
        raise InvalidInput(f"{len(ks)} and {len(coverages)} points; a fit of two numbers needs at least three pairs")
    curve_fit = _scipy("optimize").curve_fit

    def law(k, log_a, log_b):  # a = -exp(log_a), b = -exp(log_b): the signs hold whatever is tried
        import numpy

        return numpy.exp(-numpy.exp(log_a) * k ** -numpy.exp(log_b))

    begin = (math.log(1.5), math.log(0.3))
    (log_a, log_b), _ = curve_fit(law, list(map(float, ks)), list(coverages), p0=begin, maxfev=20_000)
    a, b = -math.exp(log_a), -math.exp(log_b)
    found = PowerLaw(a, b, 0.0)
    return PowerLaw(a, b, max(abs(found(k) - c) for k, c in zip(ks, coverages, strict=True)))


def fit_beta_law(counts: Sequence[tuple[int, int]]) -> BetaLaw:
    """Return the maximum-likelihood Beta distribution of success rates, given (n, right ones) of each problem.

    A generative law: unlike the curve fit it says how many problems are how hard, and extrapolates as k**-alpha.
    """
    if not counts:
        raise InvalidInput("no problems; give (samples, right ones) of at least one")
    minimize = _scipy("optimize").minimize
    log = math.lgamma

    def loss(theta: Sequence[float]) -> float:
        a, b = math.exp(theta[0]), math.exp(theta[1])
        whole = log(a + b) - log(a) - log(b)
        return -sum(whole + log(a + c) + log(b + n - c) - log(a + b + n) for n, c in counts)

    bounds = [(math.log(1e-4), math.log(1e4))] * 2
    found = minimize(loss, (math.log(0.5), math.log(1.0)), bounds=bounds, method="L-BFGS-B")
    return BetaLaw(math.exp(found.x[0]), math.exp(found.x[1]))


def _scipy(part: str):
    import importlib

    try:
        return importlib.import_module(f"scipy.{part}")
    except ImportError as error:
        raise InvalidInput("fits need scipy; install it with: pip install 'outthink[analysis]'") from error
