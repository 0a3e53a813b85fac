"""How far a mean can be trusted: differences of paired fits, over seeds and over scenes.

Fits of one scene share what that scene does to them, so they are no independent sample of other scenes. Over several
scenes the sample is therefore the mean of each scene. Student's t of it holds its level whatever part of the spread is
due to scenes and whatever part to seeds, where a bootstrap of a few values does not: of three it can give no more than
their range, which holds the true mean three times in four.
"""

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

LEVEL = 0.95
LEAST = 3  # values below which there is no interval, only their range


class Ends(StrEnum):
    """What the two ends beside a mean are."""

    INTERVAL = "95 % interval"  # Student's t
    RANGE = "range"  # the smallest and the largest value: no statement about others


class Difference(NamedTuple):
    """A mean, mostly of differences, and how far it can be trusted."""

    mean: float
    low: float | None  # None where there is one value only
    high: float | None
    ends: Ends | None


def paired_difference(
    values: Mapping[str, Mapping[int, float]], base: Mapping[str, Mapping[int, float]]
) -> Difference | None:
    """Mean of `values - base` over the pairs that both have: of one scene over its seeds, else over the scenes' means.

    Args:
        values: By scene and seed.
        base: What is subtracted.

    Returns:
        The difference; None without a pair. From three values on it has Student's t interval.

    >>> paired_difference({"fox": {0: 3.0, 1: 4.0}}, {"fox": {0: 1.0, 1: 1.0}})
    Difference(mean=2.5, low=2.0, high=3.0, ends=<Ends.RANGE: 'range'>)
    """
    pairs = {
        scene: {seed: value - base[scene][seed] for seed, value in sorted(seeds.items()) if seed in base[scene]}
        for scene, seeds in sorted(values.items())
        if scene in base
    }
    return mean_and_ends(sample_of(pairs))


def sample_of(values: Mapping[str, Mapping[int, float]]) -> list[float]:
    """The independent values among those by scene and seed: of one scene all of them, else the scenes' means.

    >>> sample_of({"fox": {0: 1.0, 1: 2.0}}), sample_of({"fox": {0: 1.0, 1: 2.0}, "drone": {0: 5.0}})
    ([1.0, 2.0], [1.5, 5.0])
    """
    scenes = [list(seeds.values()) for seeds in values.values() if seeds]
    return scenes[0] if len(scenes) == 1 else [statistics.fmean(seeds) for seeds in scenes]


def mean_and_ends(sample: Sequence[float]) -> Difference | None:
    """The mean of independent values, with Student's t interval from three on; None where there is no value."""
    if not sample:
        return None
    mean = statistics.fmean(sample)
    if len(sample) == 1:
        return Difference(mean, None, None, None)
    if len(sample) < LEAST:
        return Difference(mean, min(sample), max(sample), Ends.RANGE)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in sample) / (len(sample) - 1))
    reach = student_t(LEVEL, len(sample) - 1) * deviation / math.sqrt(len(sample))
    return Difference(mean, mean - reach, mean + reach, Ends.INTERVAL)


@functools.cache
def student_t(level: float, freedom: int) -> float:
    """The t that a Student variable stays within, on both sides, with probability `level`.

    The probability is a finite sum of powers of the cosine of the angle arctan(t / sqrt(freedom)) (Abramowitz & Stegun
    1964, 26.7.3 and 26.7.4); the angle is found by bisection.

    Args:
        level: In (0, 1).
        freedom: Degrees of freedom, >= 1.

    Raises:
        ValueError: An argument is out of range.

    >>> round(student_t(0.95, 2), 3), round(student_t(0.95, 8), 3)
    (4.303, 2.306)
    """
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"need 0 < level < 1 and freedom >= 1, got {level} and {freedom}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # the width of a double
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _probability_within(angle: float, freedom: int) -> float:
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
