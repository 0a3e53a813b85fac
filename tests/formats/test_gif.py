from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from kg4d.formats.gif import write_gif


def test_an_animation_can_be_read_back(tmp_path: Path) -> None:
    frames = torch.zeros(3, 8, 10, 3)
    frames[0, :, :5, 0] = frames[1, :4, :, 1] = frames[2, 4:, :, 2] = 1
    write_gif(tmp_path / "new" / "a.gif", frames, fps=12)
    with Image.open(tmp_path / "new" / "a.gif") as image:
        assert image.info["loop"] == 0
        read, durations = [], []
        for frame in ImageSequence.Iterator(image):
            read.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info["duration"])
    np.testing.assert_array_equal(np.stack(read), (frames * 255).byte().numpy())
    assert durations == [80] * 3


def test_bytes_are_written_as_they_are_and_fast_films_as_fast_as_browsers_play(tmp_path: Path) -> None:
    write_gif(tmp_path / "a.gif", torch.stack([torch.full((4, 4, 3), 77), torch.full((4, 4, 3), 78)]).byte(), fps=200)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == 20
        assert image.convert("RGB").getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize(("frames", "fps"), [(torch.zeros(0, 8, 8, 3), 8.0), (torch.zeros(1, 8, 8, 3), 0.0)])
def test_it_needs_frames_and_a_rate(tmp_path: Path, frames: torch.Tensor, fps: float) -> None:
    with pytest.raises(ValueError, match="at least one frame and fps > 0"):
        write_gif(tmp_path / "a.gif", frames, fps)
