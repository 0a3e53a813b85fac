"""Which images make a clip."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.metrics.clips import diagonal_clips, frame_clips, repeated, serpentine_clips, view_clips

SIZES = st.integers(1, 21)


@given(views=SIZES, frames=SIZES)
def test_rows_and_columns_hold_every_image_once(views: int, frames: int) -> None:
    everything = list(range(views * frames))
    assert frame_clips(views, frames).flatten().tolist() == everything
    columns = view_clips(views, frames)
    assert sorted(columns.flatten().tolist()) == everything
    assert (columns % frames == torch.arange(frames)[:, None]).all()


@given(views=SIZES, frames=SIZES)
def test_diagonals_step_in_both_directions(views: int, frames: int) -> None:
    clips = diagonal_clips(views, frames)
    assert clips.shape == (frames, max(views, frames))
    view, frame = clips // frames, clips % frames
    assert (view[:, 0] == 0).all()
    assert ((view[:, 1:] - view[:, :-1]) % views == 1 % views).all()
    assert ((frame[:, 1:] - frame[:, :-1]) % frames == 1 % frames).all()


@given(views=SIZES, frames=SIZES)
def test_the_serpentine_covers_all_and_moves_to_a_neighbour(views: int, frames: int) -> None:
    clips = serpentine_clips(views, frames)
    assert set(clips.flatten().tolist()) == set(range(views * frames))
    assert clips[0, 0] == 0
    step = (clips[:, 1:] // frames - clips[:, :-1] // frames).abs() + (
        clips[:, 1:] % frames - clips[:, :-1] % frames
    ).abs()
    assert (step == 1).all()


@pytest.mark.parametrize(
    ("views", "frames", "count", "length"), [(4, 16, 7, 16), (8, 21, 20, 16), (1, 16, 1, 16), (3, 7, 2, 16)]
)
def test_serpentine_windows_overlap_by_half(views: int, frames: int, count: int, length: int) -> None:
    assert serpentine_clips(views, frames).shape == (count, length)


@given(length=SIZES, minimum=SIZES)
def test_repetition_is_even_and_no_longer_than_needed(length: int, minimum: int) -> None:
    clip = torch.arange(length)[None]
    longer = repeated(clip, minimum)
    times = longer.shape[1] // length
    assert longer.shape[1] >= minimum
    assert times == 1 or (times - 1) * length < minimum
    assert (longer[0] == torch.arange(length * times) // times).all()
