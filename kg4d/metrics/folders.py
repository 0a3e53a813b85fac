"""Reads two folders of images, a method's renders and the true images, as the grids that the evaluator compares."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kg4d.errors import InputError
from kg4d.utils.reading import regular

NAME = re.compile(r"(?P<view>.+)_(?P<frame>\d+)\.png")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}  # PNG specification, 11.2.1


class ImageGrids(NamedTuple):
    """What `read_folders` finds."""

    predicted: Float[Tensor, "V T H W 3"]
    target: Float[Tensor, "V T H W 3"]
    target_alpha: Float[Tensor, "V T H W 1"] | None  # None when a target image has no alpha channel
    views: tuple[str, ...]  # names, in the order of the first axis


def read_folders(
    predicted: str | Path, target: str | Path, background: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> ImageGrids:
    """Read `<view>_<frame>.png` from both folders, RGBA composited on `background`.

    Args:
        predicted: Folder with a method's renders.
        target: Folder with the true images: the same views and frame numbers.
        background: RGB in [0, 1].

    Raises:
        InputError: A folder, view, frame or image is missing or unlike the other side; an image is not 8-bit RGB(A).
    """
    files, true_files = _index(Path(predicted)), _index(Path(target))
    _check_same_names(Path(predicted), files, true_files)
    grid, _ = _read(files, background)
    true_grid, alpha = _read(true_files, background)
    if grid.shape != true_grid.shape:
        height, width = true_grid.shape[2:4]
        found = f"holds images of {grid.shape[3]} x {grid.shape[2]} px, the target {width} x {height} px"
        raise InputError(predicted, found, "render at the size of the target")
    return ImageGrids(grid, true_grid, alpha, tuple(true_files))


def _index(folder: Path) -> dict[str, dict[int, Path]]:
    """Files by view and frame, both in the order of their numbers."""
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", "give a folder with <view>_<frame>.png files")
    files: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise InputError(path, "is not named <view>_<frame>.png", "rename it or move it away")
        frames = files.setdefault(match["view"], {})
        if int(match["frame"]) in frames:
            raise InputError(
                path, f"repeats frame {int(match['frame'])} of view {match['view']}", "keep one of the two"
            )
        frames[int(match["frame"])] = path
    if not files:
        raise InputError(folder, "holds no PNG image", "give a folder with <view>_<frame>.png files")
    lengths = {view: len(frames) for view, frames in files.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{view}: {count}" for view, count in lengths.items())
        raise InputError(
            folder, f"has views with different numbers of frames ({counts})", "give every view the same frames"
        )
    return {view: dict(sorted(files[view].items())) for view in sorted(files, key=_by_number)}


def _by_number(view: str) -> list[str | int]:
    """Sorts numbers in names as numbers, so that the views stand as a run has them.

    >>> sorted(["v10", "v2", "v1"], key=_by_number)
    ['v1', 'v2', 'v10']
    """
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", view))]


def _check_same_names(folder: Path, files: dict[str, dict[int, Path]], true_files: dict[str, dict[int, Path]]) -> None:
    missing, extra = [v for v in true_files if v not in files], [v for v in files if v not in true_files]
    if missing:
        raise InputError(
            folder, f"lacks view {', '.join(missing)} of the target", "render it or remove it from the target"
        )
    if extra:
        raise InputError(folder, f"has view {', '.join(extra)} that the target lacks", "move it away")
    for view, frames in true_files.items():
        if len(files[view]) != len(frames):
            counts = f"{len(files[view])} frames of view {view}, the target {len(frames)}"
            raise InputError(folder, f"has {counts}", "render the same frames")
        if list(files[view]) != list(frames):
            number = next(have for have, want in zip(files[view], frames, strict=True) if have != want)
            raise InputError(files[view][number], "has no frame of that number in the target", "number frames alike")


def _read(
    files: dict[str, dict[int, Path]], background: tuple[float, float, float]
) -> tuple[Float[Tensor, "V T H W 3"], Float[Tensor, "V T H W 1"] | None]:
    """Colours on the background, and the alpha channel if every image has one."""
    images = {path: _read_image(path) for frames in files.values() for path in frames.values()}
    first, (height, width, _) = next((path, image.shape) for path, image in images.items())
    for path, image in images.items():
        if image.shape[:2] != (height, width):
            size = f"{image.shape[1]} x {image.shape[0]} px, {first.name} {width} x {height} px"
            raise InputError(path, f"is {size}", "give all images one size")
    shape = (len(files), len(images) // len(files), height, width)
    white = torch.tensor(background)
    colours = [
        im[..., :3] * im[..., 3:] + white * (1 - im[..., 3:]) if im.shape[-1] == 4 else im for im in images.values()
    ]
    alphas = [im[..., 3:] for im in images.values() if im.shape[-1] == 4]
    alpha = torch.stack(alphas).reshape(*shape, 1) if len(alphas) == len(images) else None
    return torch.stack(colours).reshape(*shape, 3), alpha


def _read_image(path: Path) -> Float[Tensor, "H W C"]:
    """An 8-bit RGB or RGBA image in [0, 1]."""
    try:
        with regular(path).open("rb") as file:
            header = file.read(26)
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), "give a PNG image") from error
    if len(header) < 26 or not header.startswith(PNG_SIGNATURE):
        raise InputError(path, "is not a PNG image", "save it as 8-bit RGB or RGBA PNG")
    # read from the header: Pillow turns 16-bit RGB into 8 bits without a word
    depth, kind = header[24], COLOUR_TYPES.get(header[25], "unknown")
    if depth != 8 or kind not in ("RGB", "RGBA"):
        raise InputError(path, f"is a {depth}-bit {kind} image", "save it as 8-bit RGB or RGBA PNG")
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(path, "is an animation", "save it as 8-bit RGB or RGBA PNG")
            pixels = np.asarray(image)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(path, "is a broken PNG image", "write it again") from error
    return torch.from_numpy(pixels.copy()).float() / 255
