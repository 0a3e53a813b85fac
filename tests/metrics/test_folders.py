"""Folders of images: what is read, and the one line for each thing that can be wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kg4d.errors import InputError
from kg4d.metrics.folders import read_folders


def write(folder: Path, views: int = 2, frames: int = 3, size: tuple[int, int] = (6, 4), channels: int = 4) -> Path:
    """Write random images, the same for the same arguments."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for view in range(views):
        for frame in range(frames):
            pixels = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"v{view}_{frame:03d}.png")
    return folder


def test_grids_hold_the_images_in_order(tmp_path: Path) -> None:
    grids = read_folders(write(tmp_path / "a", channels=3), write(tmp_path / "b"))
    assert grids.predicted.shape == grids.target.shape == (2, 3, 6, 4, 3)
    assert grids.views == ("v0", "v1")
    expected = np.asarray(Image.open(tmp_path / "a" / "v1_002.png")) / np.float32(255)
    assert torch.allclose(grids.predicted[1, 2], torch.from_numpy(expected))


def test_rgba_is_composited_on_the_background(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    grids = read_folders(folder, folder, background=(1.0, 0.0, 0.5))
    pixels = torch.from_numpy(np.asarray(Image.open(folder / "v0_001.png")) / np.float32(255))
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    assert torch.allclose(grids.target[0, 1], colour * alpha + torch.tensor([1.0, 0.0, 0.5]) * (1 - alpha))
    assert torch.equal(grids.target_alpha[0, 1], alpha)


def test_rgb_targets_have_no_alpha(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", channels=3)
    assert read_folders(folder, folder).target_alpha is None


def test_frames_are_sorted_by_number_not_by_text(tmp_path: Path) -> None:
    for frame in (10, 9):
        Image.fromarray(np.full((2, 2, 3), frame, np.uint8)).save(tmp_path / f"v_{frame}.png")
    assert (read_folders(tmp_path, tmp_path).predicted[0, :, 0, 0, 0] * 255).round().tolist() == [9, 10]


def test_views_are_sorted_by_number_as_a_run_has_them(tmp_path: Path) -> None:
    grids = read_folders(write(tmp_path / "a", views=12, frames=1), write(tmp_path / "b", views=12, frames=1))
    assert grids.views == tuple(f"v{view}" for view in range(12))
    last = np.asarray(Image.open(tmp_path / "b" / "v11_000.png")) / np.float32(255)
    assert torch.equal(grids.target_alpha[11, 0, ..., 0], torch.from_numpy(last[..., 3]))


def test_views_may_have_any_names(tmp_path: Path) -> None:
    for view in ("left", "12", "7a", "7", "٣"):
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / f"{view}_0.png")
    assert read_folders(tmp_path, tmp_path).views == ("7", "7a", "12", "left", "٣")


def sixteen_bit_rgb(path: Path) -> None:
    """Pillow cannot write 16-bit RGB, so the header of a file says it."""
    data = bytearray(path.read_bytes())
    data[24] = 16
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


SPOILS = {
    "lacks view v1": lambda d: [p.unlink() for p in d.glob("v1_*")],
    "has view v2 that the target lacks": lambda d: write(d, views=3),
    "different numbers of frames (v0: 2, v1: 3)": lambda d: (d / "v0_001.png").unlink(),
    "has 2 frames of view v0, the target 3": lambda d: [p.unlink() for p in d.glob("*_002.png")],
    "has no frame of that number": lambda d: [p.rename(d / p.name.replace("002", "007")) for p in d.glob("*_002.png")],
    "holds images of 5 x 7 px, the target 4 x 6 px": lambda d: write(d, size=(7, 5)),
    "is 9 x 9 px, v0_000.png 4 x 6 px": lambda d: Image.new("RGB", (9, 9)).save(d / "v1_001.png"),
    "is a 8-bit grey image": lambda d: Image.new("L", (4, 6)).save(d / "v1_001.png"),
    "is a 16-bit grey image": lambda d: Image.new("I;16", (4, 6)).save(d / "v1_001.png"),
    "is a 1-bit palette image": lambda d: Image.new("P", (4, 6)).save(d / "v1_001.png"),
    "is a 16-bit RGBA image": lambda d: sixteen_bit_rgb(d / "v1_001.png"),
    "is a broken PNG image": lambda d: truncate(d / "v1_001.png"),
    "is not a PNG image": lambda d: (d / "v1_001.png").write_text("hello"),
    "is not named <view>_<frame>.png": lambda d: Image.new("RGB", (4, 6)).save(d / "preview.png"),
    "repeats frame 1 of view v1": lambda d: Image.new("RGB", (4, 6)).save(d / "v1_1.png"),
    "holds no PNG image": lambda d: [p.unlink() for p in d.glob("*")],
    "is not a folder": lambda d: d.rename(d.with_name("elsewhere")),
}


@pytest.mark.parametrize("message", SPOILS)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, message: str) -> None:
    target, pred = write(tmp_path / "target"), write(tmp_path / "pred")
    SPOILS[message](pred)
    with pytest.raises(InputError) as caught:
        read_folders(pred, target)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(pred) in str(caught.value)
