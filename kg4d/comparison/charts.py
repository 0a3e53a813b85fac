"""Curves of training as points of inline SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

Points = Sequence[tuple[int, float]]  # steps and values

WIDTH, HEIGHT = 300, 130  # of the plotted area, in units of the SVG
_BINS = 100  # of the steps: a curve has at most so many points
_LOGARITHMIC = 30.0  # from this ratio of the largest to the smallest value on


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in units of the SVG."""

    place: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One column of the histories, for all arms.

    Attributes:
        title: Name of the column.
        lines: By index of the arm the `points` of a polyline.
        steps: Ticks along the steps.
        values: Ticks along the values.
        logarithmic: Whether the values are on a logarithmic axis.
    """

    title: str
    lines: Mapping[int, str]
    steps: Sequence[Tick]
    values: Sequence[Tick]
    logarithmic: bool


def chart(title: str, curves: Mapping[int, Sequence[Points]]) -> Chart | None:
    """Draw a column: for each arm the mean over its runs, in bins of the steps; None where no arm has two points.

    Args:
        title: Name of the column.
        curves: By index of the arm, the points of each of its runs.
    """
    every = [point for runs in curves.values() for points in runs for point in points]
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    if first == last:
        return None
    width = max(1.0, (last - first) / _BINS)
    means = {arm: _binned([point for points in runs for point in points], first, width) for arm, runs in curves.items()}
    values = [value for points in means.values() for _, value in points]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > _LOGARITHMIC
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    span = (top - bottom) or 1.0

    def x(step: float) -> float:
        return round(WIDTH * (step - first) / (last - first), 1)

    def y(value: float) -> float:
        return round(HEIGHT * (1 - (scale(value) - bottom) / span), 1)

    lines = {arm: " ".join(f"{x(s)},{y(v)}" for s, v in points) for arm, points in means.items() if len(points) > 1}
    if not lines:
        return None
    ends = [low, high] if high > low else [low]
    return Chart(
        title,
        lines,
        [Tick(x(float(step)), str(step)) for step in (first, last)],
        [Tick(y(value), f"{value:.3g}") for value in ends],
        logarithmic,
    )


def _binned(points: Points, first: int, width: float) -> list[tuple[float, float]]:
    """Mean step and mean value of each bin that has points."""
    bins: dict[int, list[tuple[int, float]]] = {}
    for step, value in points:
        bins.setdefault(int((step - first) / width), []).append((step, value))
    return [(fmean(s for s, _ in some), fmean(v for _, v in some)) for _, some in sorted(bins.items())]
