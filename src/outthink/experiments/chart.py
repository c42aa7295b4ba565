"""The scaling curve as SVG text: no library, so that every report has it, also offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log

from outthink.experiments.curves import Curve, short, spread, ticks

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 60, 190, 20, 54


def chart(curves: Sequence[Curve]) -> str:
    """Return an <svg> element: tokens per problem (log scale) by accuracy with interval bars, labels at the ends."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    marks = ticks(min(p.tokens for p in points), max(p.tokens for p in points))
    floor_, roof = floor(min(p.low for p in points) * 10) / 10, min(1.0, ceil(max(p.high for p in points) * 10) / 10)
    scale = (WIDTH - LEFT - RIGHT) / log(marks[-1] / marks[0]) if len(marks) > 1 else 1.0

    def x(tokens: float) -> float:
        return round(LEFT + scale * log(max(tokens, marks[0]) / marks[0]), 1)

    def y(accuracy: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - (accuracy - floor_) / ((roof - floor_) or 1)), 1)

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg" role="img" '
           'aria-label="accuracy by tokens" font-family="system-ui, sans-serif" font-size="12">']  # fmt: skip
    for step in range(round((roof - floor_) * 10) + 1):
        at = y(level := floor_ + step / 10)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}" stroke="#e4e4e4"/>'
                   f'<text x="{LEFT - 8}" y="{at + 4}" text-anchor="end" fill="#555">{level:.0%}</text>')  # fmt: skip
    base = HEIGHT - BOTTOM
    for mark in marks:
        at = x(mark)
        out.append(f'<line x1="{at}" x2="{at}" y1="{base}" y2="{base + 5}" stroke="#999"/>'
                   f'<text x="{at}" y="{base + 19}" text-anchor="middle" fill="#555">{short(mark)}</text>')  # fmt: skip
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">tokens spent per problem (measured mean)</text>'
    )
    ends = spread([y(curve.points[-1].accuracy) for curve in curves], 15)
    for curve, end in zip(curves, ends, strict=True):
        out.append(_curve(curve, [(x(p.tokens), y(p.accuracy), y(p.low), y(p.high)) for p in curve.points], end))
    return "\n".join([*out, "</svg>"])


def _curve(curve: Curve, places: Sequence[tuple[float, float, float, float]], end: float) -> str:
    colour, name = curve.colour, escape(curve.method)
    path = " ".join(f"{px},{py}" for px, py, _, _ in places)
    out = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for (px, py, low, high), point in zip(places, curve.points, strict=True):
        out.append(f'<line x1="{px}" x2="{px}" y1="{low}" y2="{high}" stroke="{colour}" opacity=".35"/>'
                   f'<circle cx="{px}" cy="{py}" r="4" fill="{colour}"><title>{name} at {escape(point.budget)}: '
                   f"{point.accuracy:.1%} [{point.low:.1%}, {point.high:.1%}], {point.tokens:.0f} tokens"
                   "</title></circle>")  # fmt: skip
    px, py = places[-1][:2]
    edge = WIDTH - RIGHT + 12
    out.append(f'<polyline points="{px + 5},{py} {edge - 4},{end}" fill="none" stroke="{colour}" opacity=".3"/>'
               f'<text x="{edge}" y="{end + 4}" fill="{colour}">{name}</text>')  # fmt: skip
    return "".join(out)
