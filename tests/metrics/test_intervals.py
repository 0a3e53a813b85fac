"""Intervals: how often they hold the truth, and Student's t against SciPy."""

import itertools

import pytest
import torch
from scipy import stats

from kg4d.metrics.intervals import LEVEL, Ends, paired_difference, student_t

TRUTH = 0.7
REPEATS = 3000


def difference_of(values: list[list[float]]):
    """Of fits whose pairs differ by `values`, by scene and seed."""
    base = {str(scene): {seed: float(seed) for seed in range(len(seeds))} for scene, seeds in enumerate(values)}
    mine = {str(scene): {seed: seed + value for seed, value in enumerate(seeds)} for scene, seeds in enumerate(values)}
    return paired_difference(mine, base)


PAIRS_OF_ONE_SCENE = [(1, 3, 0.0), (1, 5, 0.0), (1, 9, 0.0)]
SCENES = [(scenes, 3, of_scene) for scenes in (3, 6, 12) for of_scene in (0.0, 1.0, 2.0)]


@pytest.mark.parametrize(("scenes", "seeds", "of_scene"), [*PAIRS_OF_ONE_SCENE, *SCENES, (3, 1, 1.0)])
def test_an_interval_covers_the_truth_as_often_as_it_says(scenes: int, seeds: int, of_scene: float) -> None:
    """Scenes differ by `of_scene` where seeds differ by 1."""
    draw = torch.Generator().manual_seed(0)
    effects = of_scene * torch.randn(REPEATS, scenes, 1, generator=draw, dtype=torch.float64)
    samples = TRUTH + effects + torch.randn(REPEATS, scenes, seeds, generator=draw, dtype=torch.float64)
    inside = 0
    for sample in samples.tolist():
        found = difference_of(sample)
        inside += found.low <= TRUTH <= found.high
    assert 0.93 <= inside / REPEATS <= 0.97


def test_it_is_the_interval_of_scipy() -> None:
    values = [0.3, 0.9, 0.1, 0.4]
    found = difference_of([values])
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(LEVEL)
    assert found.mean == pytest.approx(0.425)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.ends is Ends.INTERVAL


def test_over_scenes_it_is_that_of_their_means() -> None:
    found = difference_of([[0.0, 2.0], [2.0, 4.0], [8.0]])
    assert found[:3] == pytest.approx(difference_of([[1.0, 3.0, 8.0]])[:3])


def test_below_three_there_is_a_range() -> None:
    assert difference_of([[1.0, 3.0]]) == (2.0, 1.0, 3.0, Ends.RANGE)
    assert difference_of([[1.0, 3.0], [4.0, 8.0]]) == (4.0, 2.0, 6.0, Ends.RANGE)
    assert difference_of([[1.5]]) == (1.5, None, None, None)


def test_only_what_both_have_is_paired() -> None:
    mine, base = {"a": {0: 5.0, 1: 9.0}, "b": {0: 7.0}}, {"a": {1: 8.0, 2: 1.0}, "c": {0: 0.0}}
    assert paired_difference(mine, base) == (1.0, None, None, None)
    assert paired_difference({"a": {0: 1.0}}, {"a": {1: 1.0}}) is None


def test_students_t_is_that_of_scipy() -> None:
    for freedom, level in itertools.product([*range(1, 40), 1000], [0.5, 0.9, 0.95, 0.999]):
        assert student_t(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-10)


@pytest.mark.parametrize(("level", "freedom"), [(0.0, 3), (1.0, 3), (0.95, 0)])
def test_what_is_no_level_is_refused(level: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="level"):
        student_t(level, freedom)
