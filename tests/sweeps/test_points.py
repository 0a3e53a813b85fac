"""Which points there are, and what they are called."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kg4d.config.load import load_config
from kg4d.errors import InputError
from kg4d.sweeps.points import point_name, points_of
from kg4d.sweeps.settings import Method, Parameter, SweepConfig, SweepSettings
from kg4d.utils.names import is_folder_name

WEIGHTS = Parameter([0, 10.0])
RANGE = Parameter(low=1e-3, high=10.0, log=True)


def test_a_grid_is_all_combinations() -> None:
    settings = SweepSettings(parameters={"wgf.weight": WEIGHTS, "wgf.variant": Parameter(["a", "a+d"])})
    assert list(points_of(settings).values()) == [
        ["wgf.weight=0", "wgf.variant=a"],
        ["wgf.weight=0", "wgf.variant=a+d"],
        ["wgf.weight=10.0", "wgf.variant=a"],
        ["wgf.weight=10.0", "wgf.variant=a+d"],
    ]


def test_a_point_has_the_same_name_whatever_others_there_are() -> None:
    small = SweepSettings(parameters={"wgf.weight": WEIGHTS})
    large = SweepSettings(parameters={"wgf.weight": Parameter([5, *WEIGHTS.values])})
    known = points_of(large)
    assert len(known) == 3
    assert points_of(small) == {name: known[name] for name in points_of(small)}


def test_a_list_is_what_is_written() -> None:
    settings = SweepSettings(Method.LIST, points=[["kfc.weight=1"], ["kfc.weight=1", "kfc.mode=heatmap"], []])
    assert list(points_of(settings).values()) == settings.points


def test_random_points_lie_in_their_range_and_are_the_same_each_time() -> None:
    settings = SweepSettings(Method.RANDOM, {"a": RANGE, "b": Parameter(low=-3.0, high=3.0, whole=True)}, trials=50)
    points = points_of(settings)
    drawn = [dict(word.split("=") for word in words) for words in points.values()]
    assert points == points_of(settings)
    assert all(1e-3 <= float(one["a"]) <= 10 for one in drawn)
    assert {int(one["b"]) for one in drawn} == set(range(-3, 4))
    assert sum(float(one["a"]) < 0.1 for one in drawn) in range(15, 36)  # half of them, by the logarithm
    assert points != points_of(SweepSettings(Method.RANDOM, settings.parameters, trials=50, seed=1))


words = st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}\.[a-z]{1,8}", fullmatch=True), st.text(min_size=1)), max_size=9)


@given(st.lists(words, max_size=4, unique_by=str))
def test_names_are_folders_and_tell_points_apart(points: list[list[tuple[str, str]]]) -> None:
    named = {point_name([f"{key}={value}" for key, value in point]) for point in points}
    assert len(named) == len(points)
    assert all(is_folder_name(name) and len(name) < 100 for name in named)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("{}", "sweep: the method list needs points, the others need parameters"),
        ("{method: list, parameters: {seed: {values: [1]}}}", "the method list needs points"),
        ("{parameters: {seed: {low: 1, high: 2}}}", "sweep.parameters.seed: a grid needs values"),
        ("{parameters: {seed: {low: 1}}}", "each needs either values, or low and high"),
        ("{method: random, parameters: {seed: {low: 2, high: 1}}}", "low must be below high, not 2 and 1"),
        ("{method: random, parameters: {seed: {low: 0, high: 1, log: true}}}", "log needs low above 0"),
        ("{parameters: {seed: {values: [1]}}, trials: 0}", "trials and reports must be at least 1"),
        ("{parameters: {seed: {values: [1]}}, early_stopping: true, gpus_per_run: 2}", "fits by one process each"),
        ("{parameters: {seed: {valuse: [1]}}}", "sweep.parameters.seed.valuse: unknown key"),
    ],
)
def test_what_makes_no_sweep_is_said(tmp_path: Path, sweep: str, message: str) -> None:
    (tmp_path / "sweep.yaml").write_text(f"sweep: {sweep}")
    with pytest.raises(InputError, match=message):
        load_config(SweepConfig, tmp_path / "sweep.yaml")
