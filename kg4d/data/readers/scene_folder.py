"""Scene folders: a reference video, views of its first frame, held-out videos, keypoints and flow."""

import logging
from pathlib import Path

from kg4d.data.readers.parts import read_parts
from kg4d.data.readers.tracks import read_flow, read_keypoints
from kg4d.data.readers.undistorted import undistort_flow, undistort_keypoints
from kg4d.data.readers.viewpoints import refuse_points_behind
from kg4d.data.records import PosedImages, Scene
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.gaussians.points import PointCloud, read_points
from kg4d.utils.reading import is_there, read_json

_log = logging.getLogger(__name__)

REFERENCE, RING, TEST = "transforms_train.json", "transforms_ring.json", "transforms_test.json"
ALONE = "transforms.json"  # what nerfstudio and instant-ngp call it; read where there is no REFERENCE
KEYPOINTS, FLOW, POINTS = "keypoints.npz", "flow.npz", "points.npy"
RECORD, PREVIEW = "scene.json", "preview.png"  # how a scene came about; not needed to read it


class SceneFolder:
    """Reads scene folders, in which everything but the reference video is optional.

    A `transforms.json` takes the place of the reference video's file.
    """

    format = f"scene folder ({REFERENCE} or {ALONE}, {RING}, {TEST}, {KEYPOINTS}, {FLOW}, {POINTS})"

    def recognises(self, path: Path) -> bool:
        """Whether the folder has a `transforms_*.json` or `transforms.json`."""
        return is_there(path / ALONE) or any(path.glob("transforms_*.json"))

    def read(self, path: Path, size: int | Size | None) -> Scene:
        """Read images by `transforms`, keypoints and flow by `tracks`; see `Reader.read`."""
        video = _video(path)
        points = _points(path, path / video)
        read = read_parts(path, video, (RING, TEST), size, still=(RING,), place=points is not None)
        reference, ring, test = read[video], read.get(RING), read.get(TEST)
        if points is not None:
            refuse_points_behind(path / POINTS, points, reference.posed.cameras)
        grid, frames = reference.grid, len(reference.posed)
        if ring is not None:
            _check_ring(path / RING, ring.posed, reference.posed)
        keypoints, flow = None, None
        if is_there(path / KEYPOINTS):
            test_views = None if test is None else len(set(test.posed.views.tolist()))
            ring_views = None if ring is None else len(ring.posed)
            keypoints = read_keypoints(path / KEYPOINTS, grid, frames, ring_views, test_views)
            keypoints = undistort_keypoints(keypoints, reference, ring, test)
        if is_there(path / FLOW):
            flow = undistort_flow(read_flow(path / FLOW, grid, frames), reference.lenses)
        return Scene(
            name=path.resolve().name,
            reference=reference.posed,
            ring=ring and ring.posed,
            keypoints=keypoints and keypoints.resized(grid, grid.within(size)),
            flow=flow if size is None or flow is None else flow.resized(size),
            test=test and test.posed,
            points=points,
            backdrop=points is not None and ring is None and bool((reference.posed.alphas == 1).all()),
            files=reference.files,
            cache_keys=_cache_keys(path / RECORD),
        )


def _video(path: Path) -> str:
    """The name of the file of the reference video."""
    if not is_there(path / ALONE):
        return REFERENCE
    if is_there(path / REFERENCE):
        _log.info("%s: not read: %s is", path / ALONE, REFERENCE)
        return REFERENCE
    _log.warning("%s: read as the reference video, one frame after the other: there is no %s", path / ALONE, REFERENCE)
    return ALONE


def _points(folder: Path, video: Path) -> PointCloud | None:
    """The points that nerfstudio's `ply_file_path` names, or `points.npy`; None without."""
    try:
        table = read_json(video) if is_there(video) else {}
        name = table.get("ply_file_path") if isinstance(table, dict) else None
    except (OSError, ValueError):
        return None  # `read_parts` says what is wrong with the file
    if isinstance(name, str):
        return read_points(folder / name)
    return read_points(folder / POINTS) if is_there(folder / POINTS) else None


def _check_ring(path: Path, ring: PosedImages, reference: PosedImages) -> None:
    later = ((ring.times != reference.times[0]) | (ring.frames != 0)).nonzero()
    if len(later):
        where = f"{path}: frames[{int(later[0])}]"
        raise InputError(where, "shows another moment than the first frame", "keep views of the first frame only")


def _cache_keys(path: Path) -> dict[str, list[str]]:
    """The cache keys in `scene.json`; none if another tool wrote that file in another layout."""
    if not is_there(path):
        return {}
    try:
        keys = read_json(path).get("cache_keys", {})
        return {str(provider): [str(key) for key in used] for provider, used in keys.items()}
    except (OSError, ValueError) as error:
        remedy = "restore it, or remove it: it only says how the scene came about"
        raise InputError(path, f"is not readable JSON: {str(error)[:200]}", remedy) from error
    except (TypeError, AttributeError):
        return {}
