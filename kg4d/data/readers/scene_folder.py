"""Scene folders: a reference video, views of its first frame, held-out videos, keypoints and flow."""

from pathlib import Path

from kg4d.data.readers.parts import read_parts
from kg4d.data.readers.tracks import read_flow, read_keypoints
from kg4d.data.records import PosedImages, Scene
from kg4d.errors import InputError
from kg4d.utils.reading import is_there, read_json

REFERENCE, RING, TEST = "transforms_train.json", "transforms_ring.json", "transforms_test.json"
KEYPOINTS, FLOW = "keypoints.npz", "flow.npz"
RECORD, PREVIEW = "scene.json", "preview.png"  # how a scene came about; not needed to read it


class SceneFolder:
    """Reads scene folders, in which everything but the reference video is optional."""

    format = f"scene folder ({REFERENCE}, {RING}, {TEST}, {KEYPOINTS}, {FLOW})"

    def recognises(self, path: Path) -> bool:
        """Whether the folder has a `transforms_*.json`."""
        return any(path.glob("transforms_*.json"))

    def read(self, path: Path, size: int | None) -> Scene:
        """Read images by `transforms`, keypoints and flow by `tracks`; see `Reader.read`."""
        images, grid = read_parts(path, REFERENCE, (RING, TEST), size)
        reference, ring, test = images[REFERENCE], images.get(RING), images.get(TEST)
        if ring is not None:
            _check_ring(path / RING, ring, reference)
        keypoints, flow = None, None
        if is_there(path / KEYPOINTS):
            test_views = None if test is None else len(set(test.views.tolist()))
            ring_views = None if ring is None else len(ring)
            keypoints = read_keypoints(path / KEYPOINTS, grid, len(reference), ring_views, test_views)
        if is_there(path / FLOW):
            flow = read_flow(path / FLOW, grid, grid, len(reference))
        return Scene(
            name=path.resolve().name,
            reference=reference,
            ring=ring,
            keypoints=keypoints if size is None or keypoints is None else keypoints.scaled(size / grid),
            flow=flow if size is None or flow is None else flow.resized(size),
            test=test,
            cache_keys=_cache_keys(path / RECORD),
        )


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
