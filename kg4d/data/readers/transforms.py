"""Reading `transforms_*.json`: images with their cameras and times, in the layout of D-NeRF and nerfstudio.

Camera-to-world matrices have OpenGL axes; pixel centres are at half integers. The intrinsics of a file hold for all its
images, except for entries with intrinsics of their own. Lens distortion is undone.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.data.images import read_image, resize_rgba, sample_rgba
from kg4d.data.readers.collected import Collected
from kg4d.data.readers.intrinsics import Intrinsics
from kg4d.data.readers.timing import has_times, times_in_video, times_of_video
from kg4d.data.records import ImageFiles, PosedImages
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.lenses import Undistortion
from kg4d.geometry.orbits import viewmats_from_opengl
from kg4d.utils.reading import is_finite, is_there, read_json, shown

_log = logging.getLogger(__name__)

_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")
_SAME_TIME = 0.01  # of the smallest distance of two frames
_MOST = 1 << 31  # frames or views
_LONGEST = 1000  # characters of a path
_LOOKED_AT = 2000  # opaque pixels of a picture that are followed through its lens
_CUT = 0.01  # share of an object that may be lost without a warning


@dataclass(frozen=True)
class Listed:
    """One checked entry of `frames`; `time` is None until it is told by the other entries."""

    image: Path
    time: float | None
    frame: int | None
    view: int | None
    viewmat: Float[Tensor, "4 4"]
    intrinsics: Intrinsics


class ReadImages(NamedTuple):
    """What one `transforms_*.json` and its images hold."""

    posed: PosedImages
    grid: Size  # of the image files
    lenses: tuple[Undistortion | None, ...]  # how each image was undistorted, at the size of its file

    @property
    def files(self) -> ImageFiles:
        """How they lie in their files."""
        return ImageFiles(self.grid, self.lenses)


def list_images(
    path: Path, faults: Collected, *, still: bool = False, video: Sequence[float] | None = None
) -> list[Listed]:
    """Check one `transforms_*.json`, without reading its images.

    Where no entry has a time, those of a reference video are spaced evenly, others follow from it.

    Args:
        path: The file; its `file_path` entries are relative to its folder, with or without an extension.
        faults: Collects what is wrong; a list with faults is not to be used.
        still: All images show the first frame of the reference video.
        video: Times of that video; None for the video itself.

    Returns:
        The entries of `frames`, in the order of the file, but in that of time where the times were told by the others.
    """
    listed: list[Listed] = []
    with faults.catching():
        table = _read_json(path)
        entries = _entries(path, table)
        with faults.catching():
            timed = has_times(path, entries)
            for index, entry in enumerate(entries):
                with faults.catching():
                    listed.append(_entry(path, index, table, entry, timed))
            if len(listed) == len(entries):
                _refuse_repeated(path, listed)
                return listed if timed else _timed(path, listed, entries, still, video)
    return listed


def _timed(
    path: Path, listed: list[Listed], entries: list[Any], still: bool, video: Sequence[float] | None
) -> list[Listed]:
    if video is None:
        times = times_of_video(path, entries)
    elif still:
        times = [video[0]] * len(entries)
        _log.info("%s: no frame has a time: that of the first frame", path)
    else:
        times = times_in_video(path, entries, video)
    timed = [replace(entry, time=time) for entry, time in zip(listed, times, strict=True)]
    return sorted(timed, key=lambda entry: entry.time or 0.0) if video is None else timed


def read_posed_images(
    path: Path, listed: list[Listed], size: int | Size | None = None, video_times: Float[Tensor, " T"] | None = None
) -> ReadImages:
    """Read the images that one `transforms_*.json` lists, with their cameras.

    Without the key `frame_index`, an image shows the frame of the reference video that has its time; times that the
    video does not have count on from T. Without the key `view`, its view is the number of images before it that have
    the same time.

    Args:
        path: The file.
        listed: What `list_images` found there.
        size: Longer side that each image is resampled to, px, or its size; that of the files when None.
        video_times: Times of the T frames of the reference video, ascending; None for that video itself.

    Raises:
        InputError: An image is malformed or contradicts the rest.
    """
    images, Ks, lenses, grid = _read_images(path, listed, size)
    cameras = Cameras(torch.stack([entry.viewmat for entry in listed]), Ks, *grid).resized(*grid.within(size))
    frames, views = _frames_and_views(path, listed, video_times)
    times = torch.tensor([_time(entry) for entry in listed])
    posed = PosedImages(cameras, images, times, frames, views)
    return ReadImages(posed, grid, lenses)


def _time(entry: Listed) -> float:
    if entry.time is None:
        raise ValueError("the entry has no time yet")
    return entry.time


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
        raise InputError(f"{where}{key}", f"must be a finite number, not {shown(value)}", "correct the file")
    return float(value)  # type: ignore[arg-type]


def _index(where: str, table: Mapping[str, Any], key: str) -> int | None:
    if key not in table:
        return None
    value = _number(where, table, key)
    if value != int(value) or not 0 <= value < _MOST:
        raise InputError(f"{where}{key}", f"must be an integer from 0, not {table[key]!r:.40}", "correct the file")
    return int(value)


def _entry(path: Path, index: int, table: Mapping[str, Any], entry: Any, timed: bool) -> Listed:
    where = f"{path}: frames[{index}]."
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
        raise InputError(f"{where}file_path", "is missing or no text", "name the image")
    if len(entry["file_path"]) > _LONGEST or "\0" in entry["file_path"]:
        raise InputError(f"{where}file_path", "cannot be the path of a file", "name the image")
    base = path.parent / entry["file_path"]
    image = next((found for suffix in _SUFFIXES if (found := Path(f"{base}{suffix}")).is_file()), None)
    if image is None:
        name = base if base.suffix.lower() in _SUFFIXES[1:] else f"{base}.png"
        raise InputError(name, "no such file", f"frames[{index}] of {path.name} names it: add it or its entry")
    time = _number(where, entry, "time") if timed else None
    if time is not None and not 0 <= time <= 1:
        raise InputError(f"{where}time", f"must lie in [0, 1], not {time}", "divide by the last frame's time")
    return Listed(
        image=image,
        time=time,
        frame=_index(where, entry, "frame_index"),
        view=_index(where, entry, "view"),
        viewmat=_viewmat(f"{where}transform_matrix", entry.get("transform_matrix")),
        intrinsics=Intrinsics.read(path, index, table, entry),
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


def _refuse_repeated(path: Path, listed: list[Listed]) -> None:
    first: dict[Path, int] = {}
    for index, entry in enumerate(listed):
        earlier = first.setdefault(entry.image, index)
        if earlier != index:
            what = f"names the image of frames[{earlier}] again"
            raise InputError(f"{path}: frames[{index}].file_path", what, "list each image once")


def _read_images(
    path: Path, listed: list[Listed], size: int | Size | None
) -> tuple[Float[Tensor, "M H W 4"], Float[Tensor, "M 3 3"], tuple[Undistortion | None, ...], Size]:
    """All images, resampled; their intrinsics, what undid their lenses, and the size, of the files."""
    images, Ks, lenses, lost = [], [], [], 0.0
    grid: Size | None = None
    undone: dict[str, Undistortion] = {}  # most images share their lens
    for entry in listed:
        image = read_image(entry.image)
        if (here := Size.of(image.shape)) != (grid := grid or here):
            raise InputError(entry.image, f"is {here}, {listed[0].image.name} is {grid}", "make all images one size")
        if image[..., 3].max() < 0.5:
            raise InputError(entry.image, "has an empty matte: nothing is opaque", "mask the object or drop the image")
        K = entry.intrinsics.matrix(*grid)
        undistortion = _undistortion(path, entry.intrinsics, K, grid, undone)
        if undistortion is not None:
            lost = max(lost, _lost(image, undistortion))
            image, K = sample_rgba(image, undistortion.source), undistortion.pinhole
        images.append(resize_rgba(image[None], *grid.within(size)))
        Ks.append(K)
        lenses.append(undistortion)
    assert grid is not None
    _tell(path, listed[0].intrinsics, lenses, grid, lost)
    return torch.cat(images), torch.stack(Ks), tuple(lenses), grid


def _undistortion(
    path: Path, intrinsics: Intrinsics, K: Float[Tensor, "3 3"], grid: Size, undone: dict[str, Undistortion]
) -> Undistortion | None:
    lens = intrinsics.lens
    if lens is None:
        return None
    key = repr((lens, K.tolist()))
    if key not in undone:
        try:
            undone[key] = Undistortion.of(lens, K, *grid)
        except ValueError as error:
            what = f"the distortion cannot be undone over images of {grid} px: {error}"
            remedy = "check k1, k2, ..., fl_x and w, or give undistorted images"
            raise InputError(path, what, remedy) from error
    return undone[key]


def _lost(image: Float[Tensor, "H W 4"], undistortion: Undistortion) -> float:
    """The share of an image's matte that the pinhole camera does not see."""
    rows = (image[..., 3] > 0.5).nonzero()
    rows = rows[:: max(1, len(rows) // _LOOKED_AT)]
    pixels = undistortion.points(rows.flip(-1) + 0.5)
    seen = ((pixels >= 0) & (pixels <= pixels.new_tensor([image.shape[1], image.shape[0]]))).all(-1)
    return 1 - float(seen.float().mean())


def _tell(path: Path, first: Intrinsics, lenses: Sequence[Undistortion | None], grid: Size, lost: float) -> None:
    """Say what was made of the intrinsics of a file."""
    if first.size is not None and first.scales(*grid) != (1, 1):
        _log.info("%s: intrinsics of %g x %g px, scaled to the images' %d x %d", path, *first.size, *grid)
    if first.off_center(*grid):
        _log.warning("%s: the principal point lies far from the middle, as in images that were cropped", path)
    distinct = {id(undistortion): undistortion for undistortion in lenses if undistortion is not None}
    if distinct:
        one = next(iter(distinct.values()))
        focal = one.pinhole[0, 0].item(), one.K[0, 0].item()
        _log.info(
            "%s: lens distortion undone: focal length %.4g px, was %.4g (%d cameras)", path, *focal, len(distinct)
        )
    if lost > _CUT:
        what = "without their distortion, images lose up to %.0f %% of the object at their border"
        _log.warning(f"%s: {what}: give wider or undistorted images", path, 100 * lost)


def _frames_and_views(
    path: Path, listed: list[Listed], video_times: Float[Tensor, " T"] | None
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    frame_at = _numbered({_time(entry) for entry in listed}, video_times)
    seen: Counter[float] = Counter()
    frames, views = [], []
    for index, entry in enumerate(listed):
        time = _time(entry)
        frame = frame_at[time] if entry.frame is None else entry.frame
        in_video = video_times is not None and min(frame, frame_at[time]) < len(video_times)
        begun = video_times is None or time >= float(video_times[0])  # others are refused for their time
        if in_video and begun and frame != frame_at[time]:
            what = f"is {frame}, but its time {time:g} is not that of frame {frame} of the video"
            raise InputError(f"{path}: frames[{index}].frame_index", what, "correct one of them")
        frames.append(frame)
        views.append(seen[time] if entry.view is None else entry.view)
        seen[time] += 1
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
