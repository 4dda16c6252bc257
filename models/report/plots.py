"""The drawings, as SVG: small enough to read, and drawn in the page's own colours. Lengths are in user units, of which
a drawing is 440 wide; a phone shows it a little smaller, a desk a little larger."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from models.relevance import Interval
from models.relevance.compare import TIE
from models.report.curves import RECALL, Bin, Floats
from models.report.markup import Markup, element, join

WIDTH, HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 430, 12, 252
_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_COUNTS = 44  # height of the strip of bin counts above the diagram's floor
MOST_BARS = 400


def precision_recall_plot(curves: Mapping[str, Floats], styles: Mapping[str, str]) -> Markup:
    """One line a run, [101] precisions each; `styles` gives its class, which sets colour and dashes."""
    lines = [
        element("path", d=_path([(_x(r), _y(p)) for r, p in zip(RECALL, curve, strict=True)]), class_=styles[name])
        for name, curve in curves.items()
    ]
    told = "; ".join(f"{name} {curve[0]:.2f} falling to {curve[-1]:.2f}" for name, curve in curves.items())
    return _drawing(
        "Precision over recall", f"Mean interpolated precision: {told}.", *_axes("recall", "precision"), *lines
    )


def reliability_plot(bins: Sequence[Bin]) -> Markup:
    """Share relevant over mean probability, one dot a bin, the perfect diagonal, and the bins' counts as a strip."""
    most = max(one.pairs for one in bins)
    strip = [
        element(
            "rect",
            element("title", f"{one.low:.2f}–{one.high:.2f}: {one.pairs:,} pairs"),
            x=f"{_x(one.low) + 1:.1f}",
            width=f"{_x(one.high) - _x(one.low) - 2:.1f}",
            y=f"{_BOTTOM - _COUNTS * one.pairs / most:.1f}",
            height=f"{_COUNTS * one.pairs / most:.1f}",
            class_="count",
        )
        for one in bins
    ]
    points = [(_x(one.mean_probability), _y(one.share_relevant)) for one in bins]
    dots = [  # as large as the bin is full: the rare ones scatter most and mean least
        element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{2 + 4 * math.sqrt(one.pairs / most):.1f}", class_="dot")
        for (x, y), one in zip(points, bins, strict=True)
    ]
    diagonal = element("line", x1=_x(0), y1=_y(0), x2=_x(1), y2=_y(1), class_="ideal")
    told = "; ".join(f"{one.mean_probability:.2f} came true {one.share_relevant:.2f}" for one in bins)
    return _drawing(
        "Calibration",
        f"Share relevant by predicted probability: {told}. On the dashed diagonal both are equal.",
        *_axes("predicted probability", "share relevant"),
        *strip,
        diagonal,
        *dots,
    )


def difference_plot(differences: Sequence[tuple[str, float]], over: str) -> Markup:
    """Bars of (query, difference) in the order given, up for a gain and down for a loss. Of more than 400 queries, 400
    evenly spread ones are drawn."""
    n = len(differences)
    drawn = [differences[i * n // MOST_BARS] for i in range(MOST_BARS)] if n > MOST_BARS else list(differences)
    reach = max(0.1, max(abs(value) for _, value in drawn))
    step = (_RIGHT - _LEFT) / len(drawn)
    bars = []
    for place, (query, value) in enumerate(drawn):
        top, bottom = sorted((_along(0.0, reach), _along(value, reach)))
        bars.append(
            element(
                "rect",
                element("title", f"{query}: {value:+.3f}"),
                x=f"{_LEFT + place * step:.2f}",
                width=f"{max(step * 0.8, 0.5):.2f}",
                y=f"{top:.1f}",
                height=f"{bottom - top:.1f}",
                class_="gain" if value > 0 else "loss",
            )
        )
    ticks = [
        _tick_y(_along(value, reach), f"{value:+.2f}".replace("-", "−") if value else "0")
        for value in (reach, 0.0, -reach)
    ]
    up, down = sum(value > TIE for _, value in differences), sum(value < -TIE for _, value in differences)
    return _drawing(
        "Difference by query",
        f"{n} queries sorted by {over}, from {differences[0][1]:+.2f} to {differences[-1][1]:+.2f}: "
        f"{up} up, {down} down.",
        *ticks,
        *bars,
        _label(f"{len(drawn)} {'of ' + format(n, ',') + ' ' if n > MOST_BARS else ''}queries, sorted by difference"),
    )


def trade_off_plot(points: Sequence[tuple[str, float, float, str]], x_label: str, y_label: str) -> Markup:
    """Dots of (name, x, y, class), each axis from a little below its least to a little above its greatest. A line joins
    those of the classes `front` and `chosen`; a chosen one is ringed."""
    (x_low, x_high), (y_low, y_high) = (_padded([one[1] for one in points]), _padded([one[2] for one in points]))
    parts = []
    for share in _FIFTHS:
        tick = f"{x_low + share * (x_high - x_low):.2f}"
        parts.append(_tick_y(_y(share), f"{y_low + share * (y_high - y_low):.3f}"))
        anchor = "end" if share == 1.0 else "middle"  # the frame ends where the axis does
        parts.append(element("text", tick, x=f"{_x(share):.1f}", y=_BOTTOM + 16, text_anchor=anchor))
    placed = [(_x((one[1] - x_low) / (x_high - x_low)), _y((one[2] - y_low) / (y_high - y_low))) for one in points]
    line = sorted(at for at, one in zip(placed, points, strict=True) if one[3] != "dominated")
    parts.append(element("path", d=_path(line), class_="series-0") if line else Markup())
    for (x, y), (name, value, height, class_) in zip(placed, points, strict=True):
        if class_ == "chosen":
            parts.append(element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=9, class_="ring"))
        title = element("title", f"{name}: {value:.2f}, {height:.3f}")
        dot = "count" if class_ == "dominated" else "dot"
        parts.append(element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_=dot))
    told = "; ".join(f"{name}: {x:.2f}, {y:.3f}" for name, x, y, class_ in points if class_ != "dominated")
    parts.append(element("text", y_label, x=_LEFT + 8, y=_TOP + 12))
    return _drawing(f"{y_label} over {x_label}", f"On the front: {told}.", *parts, _label(x_label))


def _padded(values: Sequence[float]) -> tuple[float, float]:
    least, greatest = min(values), max(values)
    pad = 0.05 * (greatest - least) or max(0.05 * abs(greatest), 1e-3)
    return least - pad, greatest + pad


def interval_mark(interval: Interval, reach: float) -> Markup:
    """An interval as a bar around its estimate over [-reach, reach], with a line at 0; the figures stand beside it."""
    low, middle, high = (60 + 56 * value / reach for value in (interval.low, interval.estimate, interval.high))
    return element(
        "svg",
        element("line", x1=60, x2=60, y1=0, y2=16, class_="axis"),
        element("line", x1=f"{low:.1f}", x2=f"{high:.1f}", y1=8, y2=8, class_="span"),
        element("circle", cx=f"{middle:.1f}", cy=8, r=3.5, class_="dot"),
        viewBox="0 0 120 16",
        class_="mark",
        aria_hidden="true",
    )


def swatch(style: str) -> Markup:
    """A run's line, for the legend."""
    line = element("path", d="M0 6H28", class_=style)
    return element("svg", line, viewBox="0 0 28 12", class_="swatch", aria_hidden="true")


def _drawing(title: str, told: str, *parts: Markup) -> Markup:
    name = "d" + hashlib.sha256(title.encode()).hexdigest()[:8]
    return element(
        "svg",
        element("title", title, id=f"{name}t"),
        element("desc", told, id=f"{name}d"),
        join(parts),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{name}t {name}d",
        class_="plot",
    )


def _axes(x_label: str, y_label: str) -> list[Markup]:
    """Both from 0 to 1."""
    middle = (_TOP + _BOTTOM) / 2
    parts = [_tick_y(_y(value), f"{value:.1f}") for value in _FIFTHS]
    parts += [element("text", f"{v:.1f}", x=f"{_x(v):.1f}", y=_BOTTOM + 16, text_anchor="middle") for v in _FIFTHS]
    turned = element("text", y_label, x=12, y=middle, text_anchor="middle", transform=f"rotate(-90 12 {middle})")
    return [*parts, turned, _label(x_label)]


def _tick_y(y: float, text: str) -> Markup:
    line = element("line", x1=_LEFT, x2=_RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return join([line, element("text", text, x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end")])


def _label(text: str) -> Markup:
    return element("text", text, x=(_LEFT + _RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle")


def _x(value: float) -> float:
    return _LEFT + value * (_RIGHT - _LEFT)


def _y(value: float) -> float:
    return _BOTTOM - value * (_BOTTOM - _TOP)


def _along(value: float, reach: float) -> float:
    """The height of a value on an axis from -reach to reach."""
    return _y(0.5 + 0.5 * value / reach)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def learning_plot(name: str, points: Sequence[tuple[int, float]]) -> Markup:
    """A line of (step, value), the value's axis from 0 to a little above the greatest."""
    last, greatest = max(points[-1][0], 1), max(max(value for _, value in points), 1e-9) * 1.05
    line = element(
        "path", d=_path([(_x(step / last), _y(value / greatest)) for step, value in points]), class_="series-0"
    )
    ticks = [_tick_y(_y(share), f"{share * greatest:.2f}") for share in _FIFTHS]
    steps = [
        element("text", f"{share * last:,.0f}", x=f"{_x(share):.1f}", y=_BOTTOM + 16, text_anchor="middle")
        for share in _FIFTHS
    ]
    told = f"{name} by step: {points[0][1]:.3f} at step {points[0][0]:,}, {points[-1][1]:.3f} at step {last:,}."
    title = element("text", name, x=_LEFT + 8, y=_TOP + 12)
    return _drawing(name, told, *ticks, *steps, line, title, _label("step"))
