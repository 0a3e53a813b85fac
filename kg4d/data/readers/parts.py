"""Reading several `transforms_*.json` of a scene, and checking them against each other."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kg4d.data.readers.collected import Collected
from kg4d.data.readers.transforms import ReadImages, list_images, read_posed_images
from kg4d.data.readers.viewpoints import refuse_bad_viewpoints
from kg4d.data.records import PosedImages
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.utils.reading import is_there

_log = logging.getLogger(__name__)


def read_parts(
    folder: Path,
    video: str,
    others: Sequence[str],
    size: int | Size | None,
    still: Collection[str] = (),
    place: bool = False,
) -> dict[str, ReadImages]:
    """Read the reference video, and other images if they exist; time 0 is the first frame of the video.

    Args:
        folder: The folder of the scene.
        video: Name of the `transforms_*.json` of the reference video.
        others: Names of the other `transforms_*.json`, which may be missing.
        size: Longer side that the images are resampled to, px, or their size; that of the files when None.
        still: Those of them whose images show the first frame.
        place: Where nothing is transparent, the images show a place: the cameras may stand inside of what they see.

    Returns:
        The images by the name of their file. All files have one size.

    Raises:
        InputError: A file or an image is missing, malformed or contradicts another, the video is none, a frame of a
            view is listed twice, or a camera cannot see the object. It names all that is missing.
    """
    path, faults = folder / video, Collected(folder)
    listed = {path: list_images(path, faults)}
    moments = [entry.time for entry in listed[path] if entry.time is not None] or [0.0]
    for other in (folder / name for name in others):
        if is_there(other):
            listed[other] = list_images(other, faults, still=other.name in still, video=moments)
    faults.raise_any()
    read = {path: read_posed_images(path, listed.pop(path), size)}
    _check_video(path, read[path].posed)
    for other, entries in listed.items():
        read[other] = read_posed_images(other, entries, size, read[path].posed.times)
    _check_grid({path: part.grid for path, part in read.items()})
    images = _from_first_frame({path: part.posed for path, part in read.items()})
    for path, posed in images.items():
        _refuse_repeated(path, posed)
    if not (place and all(bool((posed.alphas == 1).all()) for posed in images.values())):
        refuse_bad_viewpoints(images)
    return {path.name: part._replace(posed=images[path]) for path, part in read.items()}


def _check_grid(grids: Mapping[Path, Size]) -> None:
    (first, grid), *others = grids.items()
    for path, other in others:
        if other != grid:
            what = f"its images are {other}, those of {first.name} are {grid}"
            raise InputError(path, what, "make all images one size")


def _check_video(path: Path, video: PosedImages) -> None:
    if len(video) < 2:
        raise InputError(f"{path}: frames", "lists one frame", "a reference video needs at least two")
    times = video.times.tolist()
    for index in range(1, len(times)):
        if times[index] <= times[index - 1]:
            why = "a duplicated frame" if times[index] == times[index - 1] else "not in order"
            what = f"is {times[index]:g} after {times[index - 1]:g}: {why}"
            raise InputError(f"{path}: frames[{index}].time", what, "list each frame once, in the order of time")
    out_of_order = (video.frames != torch.arange(len(video))).nonzero()
    if len(out_of_order):
        where = f"{path}: frames[{int(out_of_order[0])}].frame_index"
        raise InputError(where, "does not count 0, 1, 2, ...", "number the frames in the order of time")


def _from_first_frame(images: dict[Path, PosedImages]) -> dict[Path, PosedImages]:
    """The same images with times counted from the first frame of the video, which comes first: motion begins there."""
    start = float(next(iter(images.values())).times[0])
    if start == 0:
        return images
    for path, posed in images.items():
        early = (posed.times < start - 1e-6).nonzero()  # rounding is no time before
        if len(early):
            index = int(early[0])
            what = f"is {posed.times[index]:g}, before the first frame of the video at {start:g}"
            raise InputError(f"{path}: frames[{index}].time", what, "leave it out: the motion begins with that frame")
    _log.warning("%s: the first frame is at time %g: all times count from there", next(iter(images)), start)
    return {path: replace(posed, times=(posed.times - start).clamp_min(0)) for path, posed in images.items()}


def _refuse_repeated(path: Path, images: PosedImages) -> None:
    seen: dict[tuple[int, int], int] = {}
    for index, (view, frame) in enumerate(zip(images.views.tolist(), images.frames.tolist(), strict=True)):
        earlier = seen.setdefault((view, frame), index)
        if earlier != index:
            what = f"is frame {frame} of view {view}, and so is frames[{earlier}]"
            raise InputError(f"{path}: frames[{index}]", what, "list each frame of a view once")
