"""Figures → the geometry of server-rendered SVG charts.

It alone decides scales, ticks and bars; it is pure, and never queries, formats HTML or chooses a colour
(CSS does). Across, places are percentages of the plot, so that a chart fits any screen and its words keep
their size; down, they are pixels.
"""

import datetime as dt
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

HEIGHT = 236  # px, the x labels included
_TOP = 10  # px above the highest grid line, where half of its label stands
_PLOT_HEIGHT = 196  # px
_GAP = 1.5  # px between the accepted and the refused part of a bar
_HAIR = 1.0  # px between the parts of a stacked bar, and the least that one is high
_LEAST = 2.0  # px: a count above zero is never drawn flatter than this
_THICKNESS = 0.62  # of a day's column
_MAX_THICKNESS = 4.5  # percent of the plot, for charts of a few days
_X_LABELS = 7  # about this many days are named below the axis

SPARK_WIDTH = 96
SPARK_HEIGHT = 24
_SPARK_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Tick:
    """A named place on an axis: px down for a grid line, percent across for a day's middle."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """One rectangle of a bar: px from the top, and px high."""

    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One day. A part is None for a count of zero; `column_*` is the whole day, for the pointer."""

    day: dt.date
    accepted: int
    refused: int
    x: float  # percent
    width: float  # percent
    column_x: float  # percent
    column_width: float  # percent
    accepted_part: Part | None
    refused_part: Part | None

    @property
    def total(self) -> int:
        return self.accepted + self.refused

    @property
    def title(self) -> str:
        return f"{self.day:%a} {self.day.day} {self.day:%b}"

    @property
    def tip(self) -> str:
        """The tooltip: a title and one line per figure."""
        return f"{self.title}\n{self.accepted:,} accepted\n{self.refused:,} refused"

    @property
    def description(self) -> str:
        """The same in one line, for screen readers."""
        return f"{self.title}: {self.accepted:,} accepted, {self.refused:,} refused"


@dataclass(frozen=True, slots=True)
class BarChart:
    """Everything `components/chart.html` draws."""

    bars: tuple[Bar, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    accepted: int
    refused: int
    height: int = HEIGHT
    top: int = _TOP
    plot_height: int = _PLOT_HEIGHT
    x_label_y: int = HEIGHT - 8

    @property
    def total(self) -> int:
        return self.accepted + self.refused

    @property
    def is_empty(self) -> bool:
        """Nothing was counted on any day."""
        return self.total == 0

    @property
    def summary(self) -> str:
        """The chart in one sentence, for those who do not see it."""
        if not self.bars:
            return "No days to show."
        first, last = self.bars[0].title, self.bars[-1].title
        return f"{first} to {last}: {self.accepted:,} calls accepted, {self.refused:,} refused."


class Layer(NamedTuple):
    """One of the parts that bars are stacked from; `values` has one figure ≥ 0 for each bar."""

    name: str
    colour: str  # of the class `chart-<colour>`
    values: Sequence[int]


@dataclass(frozen=True, slots=True)
class Column:
    """All of one bar, for the pointer and for screen readers."""

    x: float  # percent
    width: float  # percent
    title: str
    tip: str
    description: str


@dataclass(frozen=True, slots=True)
class StackedChart:
    """Everything `components/stacked_chart.html` draws: a path a layer, in a box as wide as `across`, and
    the period before as a line (empty: none)."""

    layers: tuple[tuple[Layer, str], ...]
    line: str
    columns: tuple[Column, ...]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    summary: str
    across: int = 1000
    height: int = HEIGHT
    top: int = _TOP
    plot_height: int = _PLOT_HEIGHT
    x_label_y: int = HEIGHT - 8


def compact(number: int) -> str:
    """A count in few figures: 950 → `950`, 7500 → `7.5k`, 1_234_567 → `1.2M`; rounds half up."""
    if abs(number) < 1000:
        return str(number)
    sign, rest = ("-" if number < 0 else ""), abs(number)
    for power, suffix in ((1, "k"), (2, "M"), (3, "B"), (4, "T"), (5, "P"), (6, "E")):
        # Integers throughout: a 64-bit count has more digits than a float keeps.
        tenths = (rest * 10 + 1000**power // 2) // 1000**power
        whole, tenth = divmod(tenths, 10)
        if whole < 100:
            return f"{sign}{whole}.{tenth}{suffix}" if tenth else f"{sign}{whole}{suffix}"
        whole = (rest + 1000**power // 2) // 1000**power
        if whole < 1000:
            return f"{sign}{whole}{suffix}"
    return f"{sign}{rest // 1000**6:,}E"


def bar_chart(labels: Sequence[dt.date], accepted: Sequence[int], refused: Sequence[int]) -> BarChart:
    """One stacked bar per day, accepted below refused.

    `labels` are consecutive UTC days; `accepted` and `refused` are counts ≥ 0, one per label. Raises
    ValueError when the three differ in length or a count is negative.
    """
    if not len(labels) == len(accepted) == len(refused):
        raise ValueError("labels, accepted and refused differ in length.")
    if any(count < 0 for count in (*accepted, *refused)):
        raise ValueError("A count is negative.")
    highest = max((a + r for a, r in zip(accepted, refused, strict=True)), default=0)
    step = _nice_step(highest)
    ceiling = step * max(1, -(-highest // step))
    column = 100 / len(labels) if labels else 0.0
    bars = tuple(
        _bar(day, a, r, index * column, column, ceiling)
        for index, (day, a, r) in enumerate(zip(labels, accepted, refused, strict=True))
    )
    every = max(1, math.ceil(len(labels) / _X_LABELS))
    return BarChart(
        bars=bars,
        y_ticks=tuple(
            Tick(_round(_TOP + _PLOT_HEIGHT * (1 - value / ceiling)), compact(value))
            for value in range(0, ceiling + 1, step)
        ),
        x_ticks=tuple(
            Tick(_round(bar.column_x + column / 2), f"{bar.day.day} {bar.day:%b}") for bar in bars[::every]
        ),
        accepted=sum(accepted),
        refused=sum(refused),
    )


def stacked_chart(
    titles: Sequence[str],
    labels: Sequence[str],
    layers: Sequence[Layer],
    before: Sequence[int] = (),
    text: Callable[[int], str] = "{:,}".format,
) -> StackedChart:
    """Bars of many parts, the first layer at the ground. `titles` name the bars in full and `labels` below
    the axis; `before` has the totals of the period before, bar by bar, and may be longer or shorter; `text`
    writes a figure out."""
    totals = [sum(layer.values[index] for layer in layers) for index in range(len(titles))]
    before = before[: len(titles)]
    highest = max([0, *totals, *before])
    step = _nice_step(highest)
    ceiling = step * max(1, -(-highest // step))
    column = 100 / len(titles) if titles else 0.0
    ground = [0] * len(titles)
    drawn = []
    for layer in layers:
        drawn.append((layer, _layer(layer.values, ground, column, ceiling)))
        ground = [low + high for low, high in zip(ground, layer.values, strict=True)]
    every = max(1, math.ceil(len(titles) / _X_LABELS))
    return StackedChart(
        layers=tuple(drawn),
        line=_line(before, column, ceiling),
        columns=tuple(
            Column(
                x=_round(index * column),
                width=_round(column),
                title=title,
                tip="\n".join([title, *_tip(index, totals[index], layers, before, text)]),
                description=f"{title}: {text(totals[index])}",
            )
            for index, title in enumerate(titles)
        ),
        y_ticks=tuple(
            Tick(_round(_TOP + _PLOT_HEIGHT * (1 - value / ceiling)), _short(value, text))
            for value in range(0, ceiling + 1, step)
        ),
        x_ticks=tuple(
            Tick(_round((index + 0.5) * column), labels[index]) for index in range(0, len(labels), every)
        ),
        summary=f"{titles[0]} to {titles[-1]}: {text(sum(totals))}" if titles else "Nothing to show.",
    )


def _layer(values: Sequence[int], ground: Sequence[int], column: float, ceiling: int) -> str:
    """The path of one layer's rectangles; a hair is left free above each that is high enough."""
    scale, width = _PLOT_HEIGHT / ceiling, min(column * _THICKNESS, _MAX_THICKNESS)
    parts = []
    for index, (low, value) in enumerate(zip(ground, values, strict=True)):
        if value > 0:
            high = max(value * scale, _HAIR)
            gap = _HAIR if high > 3 * _HAIR else 0.0
            x = _round(10 * (index * column + (column - width) / 2))
            y = _round(_TOP + _PLOT_HEIGHT - low * scale - high + gap)
            parts.append(f"M{x} {y}h{_round(10 * width)}v{_round(high - gap)}h{_round(-10 * width)}z")
    return "".join(parts)


def _line(values: Sequence[int], column: float, ceiling: int) -> str:
    """The points of a line from bar to bar; of a single bar, across it."""
    heights = [_round(_TOP + _PLOT_HEIGHT * (1 - value / ceiling)) for value in values]
    if len(heights) == 1:
        return f"0,{heights[0]} {_round(10 * column)},{heights[0]}"
    return " ".join(f"{_round(10 * (index + 0.5) * column)},{y}" for index, y in enumerate(heights))


def _tip(
    index: int,
    total: int,
    layers: Sequence[Layer],
    before: Sequence[int],
    text: Callable[[int], str],
) -> list[str]:
    """The lines below the title: the parts, the highest in the bar first, the total, the period before."""
    parts = [f"{text(layer.values[index])} {layer.name}" for layer in layers if layer.values[index]]
    lines = [*reversed(parts), f"{text(total)} in all"] if len(parts) > 1 else parts or [text(0)]
    return [*lines, f"{text(before[index])} in the period before"] if index < len(before) else lines


def _short(value: int, text: Callable[[int], str]) -> str:
    """A tick's figure: short where it is whole, else as it is written out."""
    written = text(value)
    whole, _, rest = written.replace(",", "").partition(".")
    return compact(int(whole)) if not rest.strip("0") else written.rstrip("0")


def sparkline(values: Sequence[int]) -> str:
    """The `points` of a polyline in a `SPARK_WIDTH` × `SPARK_HEIGHT` box; no values give no points.

    The scale begins at zero, so that a steady key draws a level line and a silent one lies on the ground.
    """
    if not values:
        return ""
    if len(values) == 1:
        values = [values[0], values[0]]
    highest = max(*values, 1)
    across = (SPARK_WIDTH - 2 * _SPARK_MARGIN) / (len(values) - 1)
    down = SPARK_HEIGHT - 2 * _SPARK_MARGIN
    return " ".join(
        f"{_round(_SPARK_MARGIN + index * across)},{_round(_SPARK_MARGIN + down * (1 - value / highest))}"
        for index, value in enumerate(values)
    )


def _nice_step(highest: int) -> int:
    """The least of 1, 2, 2.5, 5 × 10ⁿ that needs at most four steps to reach `highest`; whole numbers."""
    power = 1
    while True:
        for tenths in (10, 20, 25, 50):
            step, rest = divmod(tenths * power, 10)
            if not rest and step * 4 >= highest:
                return step
        power *= 10


def _bar(day: dt.date, accepted: int, refused: int, x: float, column: float, ceiling: int) -> Bar:
    scale = _PLOT_HEIGHT / ceiling
    width = min(column * _THICKNESS, _MAX_THICKNESS)
    low = max(accepted * scale, _LEAST) if accepted else 0.0
    high = max(refused * scale, _LEAST) if refused else 0.0
    # The gap is taken from the refused part where that leaves anything, so that tops stay true to scale.
    gap = min(_GAP, high - _LEAST) if low and high else 0.0
    ground = _TOP + _PLOT_HEIGHT
    return Bar(
        day=day,
        accepted=accepted,
        refused=refused,
        x=_round(x + (column - width) / 2),
        width=_round(width),
        column_x=_round(x),
        column_width=_round(column),
        accepted_part=Part(_round(ground - low), _round(low)) if low else None,
        refused_part=Part(_round(ground - low - high), _round(high - gap)) if high else None,
    )


def _round(value: float) -> float:
    return round(value, 2)
