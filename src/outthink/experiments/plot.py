"""The scaling curve as a PNG, by matplotlib (extra `analysis`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from outthink.core.errors import Unsupported
from outthink.experiments.curves import Curve, short, spread, ticks


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot(curves: Sequence[Curve], path: str | Path, *, title: str = "") -> Path:
    """Write the plot of `curves` to `path` and return it. Raises Unsupported, naming the extra, without matplotlib."""
    if not available():
        raise Unsupported(
            "the PNG plot needs matplotlib: pip install 'outthink[analysis]' (report.html has the plot too)"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in curves:
        xs, ys = [p.tokens for p in curve.points], [p.accuracy for p in curve.points]
        bars = [[p.accuracy - p.low for p in curve.points], [p.high - p.accuracy for p in curve.points]]
        axes.plot(xs, ys, "-o", color=curve.colour, markersize=5, linewidth=1.8)
        axes.errorbar(xs, ys, yerr=bars, fmt="none", ecolor=curve.colour, alpha=0.3)
    points = [p for curve in curves for p in curve.points]
    if points:
        marks = ticks(min(p.tokens for p in points), max(p.tokens for p in points))
        axes.set_xscale("log", base=2)
        axes.set_xticks(marks, [short(mark) for mark in marks])
        axes.minorticks_off()
        low, high = axes.get_ylim()
        ends = spread([curve.points[-1].accuracy for curve in curves], (high - low) * 0.045)
        for curve, end in zip(curves, ends, strict=True):
            last = curve.points[-1]
            axes.annotate(curve.method, (last.tokens, last.accuracy), xytext=(1.02, end), color=curve.colour,
                          textcoords=axes.get_yaxis_transform(), va="center", fontsize=9,
                          arrowprops={"arrowstyle": "-", "color": curve.colour, "alpha": 0.3})  # fmt: skip
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="tokens spent per problem (measured mean)", ylabel="accuracy", title=title)
    path = Path(path)
    figure.savefig(path)
    return path
