"""Inputs as people have them: a moving textured object, as files."""

from pathlib import Path

import torch
from torch import Tensor

from kg4d.data.images import write_png
from kg4d.formats.mp4 import write_mp4
from tests.priors.textures import picture, rotation


def moving(frames: int = 4) -> Tensor:
    """The textured disc goes to the right and turns: straight RGBA (T, 96, 96, 4)."""
    return torch.stack([picture(rotation(4.0 * t), torch.tensor([2.0 * t, 0.0])) for t in range(frames)])


def on_white(rgba: Tensor) -> Tensor:
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def save_video(path: Path, frames: int = 4) -> Path:
    """An .mp4 of it on white."""
    write_mp4(path, on_white(moving(frames)), fps=8)
    return path


def save_frames(folder: Path, frames: int = 4) -> Path:
    """A folder of RGBA frames."""
    for index, frame in enumerate(moving(frames)):
        write_png(folder / f"{index}.png", frame)
    return folder


def save_picture(path: Path) -> Path:
    """One RGBA image."""
    write_png(path, picture())
    return path
