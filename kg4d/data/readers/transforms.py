"""Reading `transforms_*.json`: images with their cameras and times, in the layout of D-NeRF and nerfstudio.

Camera-to-world matrices have OpenGL axes; pixel centres are at half integers. The intrinsics of a file hold for all its
images, except for entries with intrinsics of their own.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.data.images import read_image, resize_rgba
from kg4d.data.records import PosedImages
from kg4d.errors import InputError
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import viewmats_from_opengl
from kg4d.utils.reading import is_finite, is_there, read_json

_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
_SAME_TIME = 0.01  # of the smallest distance of two frames
_MOST = 1 << 31  # frames or views
_LONGEST = 1000  # characters of a path


@dataclass(frozen=True)
class _Listed:
    """One checked entry of `frames`."""

    image: Path
    time: float
    frame: int | None
    view: int | None
    viewmat: Float[Tensor, "4 4"]


def read_posed_images(
    path: Path, size: int | None = None, video_times: Float[Tensor, " T"] | None = None
) -> tuple[PosedImages, int]:
    """Read one `transforms_*.json` and its images.

    Without the key `frame_index`, an image shows the frame of the reference video that has its time; times that the
    video does not have count on from T. Without the key `view`, its view is the number of images before it that have
    the same time.

    Args:
        path: The file; its `file_path` entries are relative to its folder, with or without an extension.
        size: Side that each image is resampled to, px; that of the files when None.
        video_times: Times of the T frames of the reference video, ascending; None for that video itself.

    Returns:
        The images in the order of the file, and the side of the image files, px.

    Raises:
        InputError: The file or an image is missing, malformed or contradicts the rest.
    """
    table = _read_json(path)
    entries = _entries(path, table)
    listed = [_entry(path, index, entry) for index, entry in enumerate(entries)]
    _refuse_repeated(path, listed)
    images, grid = _read_images(listed, size)
    Ks = torch.stack([_intrinsics(path, {**table, **entry}, grid) for entry in entries])
    cameras = Cameras(torch.stack([entry.viewmat for entry in listed]), Ks, grid, grid)
    frames, views = _frames_and_views(path, listed, video_times)
    times = torch.tensor([entry.time for entry in listed])
    return PosedImages(cameras if size is None else cameras.resized(size, size), images, times, frames, views), grid


def _read_json(path: Path) -> Mapping[str, Any]:
    if not is_there(path):
        raise InputError(path, "no such file", "a scene folder holds at least transforms_train.json and its images")
    try:
        table = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(path, f"is not readable JSON: {str(error)[:200]}", "repair or export it again") from error
    if not isinstance(table, dict):
        raise InputError(path, "holds no JSON object", "it needs the keys camera_angle_x and frames")
    return table


def _entries(path: Path, table: Mapping[str, Any]) -> list[Any]:
    entries = table.get("frames")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: frames", "is missing, empty or no list", "list at least one image")
    return entries


def _number(where: str, table: Mapping[str, Any], key: str) -> float:
    value = table.get(key)
    if not is_finite(value):
        raise InputError(f"{where}{key}", f"must be a finite number, not {_shown(value)}", "correct the file")
    return float(value)  # type: ignore[arg-type]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _index(where: str, table: Mapping[str, Any], key: str) -> int | None:
    if key not in table:
        return None
    value = _number(where, table, key)
    if value != int(value) or not 0 <= value < _MOST:
        raise InputError(f"{where}{key}", f"must be an integer from 0, not {table[key]!r:.40}", "correct the file")
    return int(value)


def _entry(path: Path, index: int, entry: Any) -> _Listed:
    where = f"{path}: frames[{index}]."
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
        raise InputError(f"{where}file_path", "is missing or no text", "name the image")
    if len(entry["file_path"]) > _LONGEST or "\0" in entry["file_path"]:
        raise InputError(f"{where}file_path", "cannot be the path of a file", "name the image")
    base = path.parent / entry["file_path"]
    image = next((found for suffix in _SUFFIXES if (found := Path(f"{base}{suffix}")).is_file()), None)
    if image is None:
        raise InputError(f"{base}.png", "no such file", f"frames[{index}] of {path.name} names it: add it or its entry")
    time = _number(where, entry, "time")
    if not 0 <= time <= 1:
        raise InputError(f"{where}time", f"must lie in [0, 1], not {time}", "divide by the last frame's time")
    return _Listed(
        image=image,
        time=time,
        frame=_index(where, entry, "frame_index"),
        view=_index(where, entry, "view"),
        viewmat=_viewmat(f"{where}transform_matrix", entry.get("transform_matrix")),
    )


def _viewmat(where: str, rows: Any) -> Float[Tensor, "4 4"]:
    """Check a camera-to-world matrix (4 x 4, finite, a rotation and a translation) and convert it."""
    remedy = "give a 4 x 4 camera-to-world matrix: rotation, translation and (0, 0, 0, 1)"
    try:
        matrix = torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(where, "is missing or no matrix of numbers", remedy) from error
    if matrix.shape != (4, 4):
        raise InputError(where, f"has the shape {tuple(matrix.shape)}", remedy)
    if not matrix.isfinite().all():
        raise InputError(where, "holds NaN or infinity", remedy)
    if not torch.equal(matrix[3], matrix.new_tensor([0.0, 0.0, 0.0, 1.0])):
        raise InputError(where, "has another last row than (0, 0, 0, 1)", remedy)
    try:
        return viewmats_from_opengl(matrix[None])[0].float()
    except ValueError as error:
        raise InputError(where, "is not rigid: it scales, shears or mirrors", remedy) from error


def _refuse_repeated(path: Path, listed: list[_Listed]) -> None:
    first: dict[Path, int] = {}
    for index, entry in enumerate(listed):
        earlier = first.setdefault(entry.image, index)
        if earlier != index:
            what = f"names the image of frames[{earlier}] again"
            raise InputError(f"{path}: frames[{index}].file_path", what, "list each image once")


def _read_images(listed: list[_Listed], size: int | None) -> tuple[Float[Tensor, "M H W 4"], int]:
    """All images, resampled, and the side of the image files, px."""
    images, grid = [], 0
    for entry in listed:
        image = read_image(entry.image)
        height, width = image.shape[:2]
        if height != width:
            raise InputError(entry.image, f"is {width} x {height}, not square", "pad or crop the images to a square")
        if width != (grid := grid or width):
            what = f"is {width} x {width}, {listed[0].image.name} is {grid} x {grid}"
            raise InputError(entry.image, what, "make all images one size")
        if image[..., 3].max() < 0.5:
            raise InputError(entry.image, "has an empty matte: nothing is opaque", "mask the object or drop the image")
        images.append(image[None] if size is None else resize_rgba(image[None], size, size))
    return torch.cat(images), grid


def _intrinsics(path: Path, table: Mapping[str, Any], grid: int) -> Float[Tensor, "3 3"]:
    """The intrinsics from `fl_x` or `camera_angle_x` and the optional keys; `w` and `h` must match the images."""
    where = f"{path}: "
    for key in ("w", "h"):
        if key in table and _number(where, table, key) != grid:
            raise InputError(f"{where}{key}", f"is {table[key]}, the images are {grid} x {grid}", "correct either")
    if "fl_x" in table:
        focal = _number(where, table, "fl_x")
    elif "camera_angle_x" in table:
        angle = _number(where, table, "camera_angle_x")
        if not 0 < angle < math.pi:
            raise InputError(f"{where}camera_angle_x", f"is {angle}", "give the field of view in radians")
        focal = 0.5 * grid / math.tan(0.5 * angle)
    else:
        raise InputError(f"{where}camera_angle_x", "is missing, and so is fl_x", "give one of them")
    focal_y = _number(where, table, "fl_y") if "fl_y" in table else focal
    if min(focal, focal_y) <= 0:
        raise InputError(f"{where}fl_x", "must be positive", "give the focal length in pixels")
    center_x = _number(where, table, "cx") if "cx" in table else grid / 2
    center_y = _number(where, table, "cy") if "cy" in table else grid / 2
    return torch.tensor([[focal, 0, center_x], [0, focal_y, center_y], [0, 0, 1]])


def _frames_and_views(
    path: Path, listed: list[_Listed], video_times: Float[Tensor, " T"] | None
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    frame_at = _numbered({entry.time for entry in listed}, video_times)
    seen: Counter[float] = Counter()
    frames, views = [], []
    for index, entry in enumerate(listed):
        frame = frame_at[entry.time] if entry.frame is None else entry.frame
        in_video = video_times is not None and min(frame, frame_at[entry.time]) < len(video_times)
        begun = video_times is None or entry.time >= float(video_times[0])  # others are refused for their time
        if in_video and begun and frame != frame_at[entry.time]:
            what = f"is {frame}, but its time {entry.time:g} is not that of frame {frame} of the video"
            raise InputError(f"{path}: frames[{index}].frame_index", what, "correct one of them")
        frames.append(frame)
        views.append(seen[entry.time] if entry.view is None else entry.view)
        seen[entry.time] += 1
    return torch.tensor(frames), torch.tensor(views)


def _numbered(times: set[float], video_times: Float[Tensor, " T"] | None) -> dict[float, int]:
    """The frame of each time. Files are rounded each in its own way: near to a frame of the video is at it."""
    if video_times is None:
        return {time: rank for rank, time in enumerate(sorted(times))}
    near = _SAME_TIME * float(video_times.diff().min())
    frames, beyond = {}, len(video_times)
    for time in sorted(times):
        distances = (video_times - time).abs()
        frame = int(distances.argmin())
        frames[time] = frame if float(distances[frame]) <= near else beyond
        beyond += frames[time] == beyond
    return frames
