"""Reading a scene folder: images by `transforms`, keypoints and flow by `tracks`, and what must hold between them."""

import json
import logging
from pathlib import Path

import torch

from kg4d.data.readers.tracks import read_flow, read_keypoints
from kg4d.data.readers.transforms import read_posed_images
from kg4d.data.readers.viewpoints import refuse_bad_viewpoints
from kg4d.data.records import PosedImages, Scene
from kg4d.errors import InputError

_log = logging.getLogger(__name__)

REFERENCE, RING, TEST = "transforms_train.json", "transforms_ring.json", "transforms_test.json"
KEYPOINTS, FLOW = "keypoints.npz", "flow.npz"
RECORD, PREVIEW = "scene.json", "preview.png"  # how a scene came about; not needed to read it
_WITHOUT = {
    RING: "there are no views of the first frame from around",
    TEST: "there are no held-out videos to measure on",
    KEYPOINTS: "the keypoint and flow losses are off",
    FLOW: "the flow loss uses the motion of the keypoints, where there are any",
}


def read_scene(folder: Path, size: int | None) -> Scene:
    """Read a scene folder; see `kg4d.data.scene.load_scene`."""
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "check the path of the scene")
    for name, consequence in _WITHOUT.items():
        if not (folder / name).exists():
            _log.info("%s: no %s: %s", folder, name, consequence)
    read = {
        folder / name: read_posed_images(folder / name, size)
        for name in (REFERENCE, RING, TEST)
        if name == REFERENCE or (folder / name).exists()
    }
    images = {path: posed for path, (posed, _) in read.items()}
    grid = _common_grid({path: side for path, (_, side) in read.items()})
    reference, ring, test = images[folder / REFERENCE], images.get(folder / RING), images.get(folder / TEST)
    _check_video(folder / REFERENCE, reference)
    if ring is not None:
        _check_ring(folder / RING, ring, reference)
    if test is not None:
        _refuse_repeated(folder / TEST, test)
    refuse_bad_viewpoints(images)
    keypoints, flow = None, None
    if (folder / KEYPOINTS).exists():
        test_views = None if test is None else len(set(test.views.tolist()))
        ring_views = None if ring is None else len(ring)
        keypoints = read_keypoints(folder / KEYPOINTS, grid, len(reference), ring_views, test_views)
    if (folder / FLOW).exists():
        flow = read_flow(folder / FLOW, grid, grid, len(reference))
    return Scene(
        name=folder.resolve().name,
        reference=reference,
        ring=ring,
        keypoints=keypoints if size is None or keypoints is None else keypoints.scaled(size / grid),
        flow=flow if size is None or flow is None else flow.resized(size),
        test=test,
        cache_keys=_cache_keys(folder / RECORD),
    )


def _cache_keys(path: Path) -> dict[str, list[str]]:
    """From `scene.json`, which other tools write too, each in its own way."""
    try:
        keys = json.loads(path.read_text(encoding="utf-8")).get("cache_keys", {})
        return {str(provider): [str(key) for key in used] for provider, used in keys.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _common_grid(grids: dict[Path, int]) -> int:
    (first, grid), *others = grids.items()
    for path, other in others:
        if other != grid:
            what = f"its images are {other} x {other}, those of {first.name} are {grid} x {grid}"
            raise InputError(path, what, "make all images one size")
    return grid


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


def _check_ring(path: Path, ring: PosedImages, reference: PosedImages) -> None:
    later = ((ring.times != reference.times[0]) | (ring.frames != 0)).nonzero()
    if len(later):
        where = f"{path}: frames[{int(later[0])}]"
        raise InputError(where, "shows another moment than the first frame", "keep views of the first frame only")
    _refuse_repeated(path, ring)


def _refuse_repeated(path: Path, images: PosedImages) -> None:
    seen: dict[tuple[int, int], int] = {}
    for index, (view, frame) in enumerate(zip(images.views.tolist(), images.frames.tolist(), strict=True)):
        earlier = seen.setdefault((view, frame), index)
        if earlier != index:
            what = f"is frame {frame} of view {view}, and so is frames[{earlier}]"
            raise InputError(f"{path}: frames[{index}]", what, "list each frame of a view once")
