"""Windows of a long clip: which frames they hold, and when a step draws from which."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.batches.settings import DynamicDataConfig, WindowsConfig
from tests import make


@given(st.integers(1, 200), st.integers(2, 60), st.data())
def test_windows_cover_the_clip_and_share_frames(count: int, frames: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(1, frames - 1))
    windows = WindowsConfig(frames, overlap).of(count)
    assert windows[0].start == 0
    assert windows[-1].stop == count
    assert {len(window) for window in windows} == {min(frames, count)}
    for one, following in itertools.pairwise(windows):
        assert following.start > one.start
        assert one.stop - following.start >= overlap


@pytest.mark.parametrize("overlap", [0, 8, 9])
def test_windows_that_do_not_get_on_are_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match=r"windows\.overlap"):
        WindowsConfig(8, overlap)


@pytest.mark.parametrize("paired", [False, True])
def test_a_step_draws_from_its_window_of_all_videos(paired: bool) -> None:
    scene = make.tiny_scene()
    assert scene.test is not None
    config = DynamicDataConfig(2, windows=WindowsConfig(2, 1))
    dataset = DynamicDataset(replace(scene, videos=scene.test), config, torch.ones(3), 0, paired=paired, steps=20)
    seen = [dataset.batch(step) for step in range(60)]
    drawn = [sorted({int(frame) for batch in seen[20 * k : 20 * k + 20] for frame in batch.frames}) for k in range(3)]
    assert drawn == [[0, 1], [1, 2], [2, 3]]
    assert len(torch.unique(torch.cat([batch.cameras.viewmats for batch in seen]), dim=0)) > 1
