import pytest
import torch

from kg4d.comparison.films import _without_bars
from kg4d.formats.legend import with_legend


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 128), (256, 256), (300, 1000)])
def test_a_bar_with_words_stands_above_and_covers_nothing(height: int, width: int) -> None:
    frames = torch.rand(2, height, 3 * width, 3)
    shown = with_legend(frames, ["predicted", "truth", "error"])
    bar = shown.shape[1] - height
    assert bar % 2 == 0
    assert torch.equal(shown[:, bar:], frames)
    assert torch.equal(shown[0, :bar], shown[1, :bar])
    words = shown[0, :bar].split(width, dim=1)
    assert all(word.max() > 0.8 and word.mean() < 0.5 for word in words)  # light letters on dark
    assert not torch.equal(words[0], words[1])
    assert not torch.equal(words[1], words[2])


def test_words_that_are_too_long_stay_above_their_picture() -> None:
    bar = with_legend(torch.zeros(1, 10, 2 * 80, 3), ["a name that is far too long", "b"])[0, :-10]
    ink = (bar > 0.3).any(0).any(-1)
    assert ink[:80].any()
    assert not ink[76:84].any()
    assert torch.equal(bar[:, :80], with_legend(torch.zeros(1, 10, 80, 3), ["a name that is far too long"])[0, :-10])


def test_pictures_without_room_for_words_stay_as_they_are() -> None:
    frames = torch.rand(1, 32, 96, 3)
    assert with_legend(frames, ["predicted", "truth", "error"]) is frames


def test_videos_with_and_without_a_bar_stand_beside_each_other() -> None:
    old, other = torch.rand(2, 64, 192, 3), torch.rand(2, 32, 96, 3)
    new = with_legend(old, ["predicted", "truth", "error"])
    videos = _without_bars([new, old, other])
    assert torch.equal(videos[0], old)
    assert torch.equal(videos[1], old)
    assert torch.equal(videos[2], other)
