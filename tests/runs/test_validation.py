"""What a search is told of a fit, and how it ends one."""

from pathlib import Path

import pytest

from kg4d.errors import InputError
from kg4d.pipeline import fit
from kg4d.runs.build import build_run
from kg4d.runs.folder import RunFolder
from kg4d.runs.validation import GivenUpError, Validation, held_out_frames
from tests.sweeps.tiny_jobs import quick_runs


def test_held_out_frames_are_those_that_the_fit_does_not_see(tmp_path: Path) -> None:
    run = build_run(quick_runs(tmp_path, "frames.hold_out=2")[0].config)
    frames = held_out_frames(run)
    both = {*frames.times.tolist(), *run.scene.reference.times.tolist()}
    assert both == set(run.whole_scene.reference.times.tolist())
    assert len(frames) + len(run.scene.reference) == len(run.whole_scene.reference)


def test_a_fit_that_sees_all_frames_cannot_be_judged(tmp_path: Path) -> None:
    run = build_run(quick_runs(tmp_path)[0].config)
    with pytest.raises(InputError, match=r"frames.hold_out: leaves none of the 16 frames to judge by"):
        held_out_frames(run)


def test_a_fit_is_asked_at_even_distances_and_ends_where_it_is_told_to(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []

    def goes_on(step: int, value: float) -> bool:
        told.append((step, value))
        return len(told) < 2

    config = quick_runs(tmp_path, "frames.hold_out=2", "dynamic.steps=8")[0].config
    with pytest.raises(GivenUpError, match="given up after step 4"):
        fit(config, validation=Validation(3, goes_on))
    assert [step for step, _ in told] == [2, 4]
    assert all(5 < value < 40 for _, value in told)
    assert not RunFolder.of(config).metrics.exists()
