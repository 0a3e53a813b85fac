"""Reading `keypoints.npz` and `flow.npz` of a scene folder."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.readers.arrays import Archive
from kg4d.data.records import Flow, Keypoints
from kg4d.data.sizes import Size
from kg4d.keypoints.skeleton import first_below_cycle

_CONFIDENCES = ("visible", "weights", "confidence")
_KEYPOINTS = (
    "names",
    "parents",
    "uv",
    "xyz",
    "leans",
    *_CONFIDENCES,
    "ring_uv",
    *(f"ring_{word}" for word in _CONFIDENCES),
)
_FLOW = ("flow", "weights", "valid", "visible_next")


def read_keypoints(path: Path, grid: Size, frames: int, ring_views: int | None, test_views: int | None) -> Keypoints:
    """Read `keypoints.npz`.

    The confidences of the reference video are the array `weights` or `confidence` (T, J), otherwise row 0 of `visible`
    (V, T, J); for the ring likewise, with the prefix `ring_` and R in place of T. A keypoint outside its image gets
    confidence 0. Row v > 0 of `uv` and `visible` belongs to the test video with the v-th lowest view number. The array
    `leans` (T, J) may say which way bones lean, as in `Keypoints`.

    Args:
        path: The file.
        grid: Size of the images; pixel positions in the file refer to it.
        frames: Number T of frames of the reference video.
        ring_views: Number R of views of the ring; None ignores the arrays of the ring.
        test_views: Number of test videos; None ignores their rows.

    Raises:
        InputError: An array is missing, misshapen or holds impossible values.
    """
    sizes = {"T": frames} if ring_views is None else {"T": frames, "R": ring_views}
    archive = Archive(path, _KEYPOINTS, **sizes)
    names = archive.words("names", "J")
    parents = _read_parents(archive)
    seen = _seen(archive)
    uv = archive.where_seen("uv", "V T J 2", seen)
    if test_views is not None and len(uv) not in (1, 1 + test_views):
        what = f"has {len(uv)} views, but there are the reference and {test_views} test videos"
        raise archive.error("uv", what, "give one row for the reference and one for each test video")
    tested = test_views is not None and len(uv) > 1
    ring_uv, ring_weights = (None, None) if ring_views is None else _read_ring(archive, grid)
    everywhere = torch.ones(frames, len(names))
    return Keypoints(
        names=names,
        parents=parents,
        uv=uv[0],
        weights=seen[0] * _inside(uv[0], grid),
        ring_uv=ring_uv,
        ring_weights=ring_weights,
        leans=_read_leans(archive),
        truth=archive.where_seen("xyz", "T J 3", everywhere) if "xyz" in archive else None,
        test_uv=uv[1:] if tested else None,
        test_visible=seen[1:] > 0 if tested else None,
    )


def read_flow(path: Path, grid: Size, frames: int) -> Flow:
    """Read `flow.npz`; the weights are the array `weights`, otherwise 1 where both `valid` and `visible_next` are.

    Args:
        path: The file.
        grid: Size of the images.
        frames: Number T of frames of the reference video.

    Raises:
        InputError: An array is missing, misshapen or holds impossible values.
    """
    archive = Archive(path, _FLOW, **{"T-1": frames - 1, "H": grid.height, "W": grid.width})
    if "weights" in archive:
        weights = archive.weights("weights", "T-1 H W")
    else:
        weights = archive.weights("valid", "T-1 H W") * archive.weights("visible_next", "T-1 H W")
    return Flow(archive.where_seen("flow", "T-1 H W 2", weights), weights)


def _read_parents(archive: Archive) -> tuple[int, ...]:
    parents = archive.take("parents", "J").tolist()
    count = len(parents)
    if not all(isinstance(parent, int) and -1 <= parent < count for parent in parents):
        raise archive.error("parents", f"holds other values than integers from -1 to {count - 1}", "correct it")
    below = first_below_cycle(parents)
    if below is not None:
        raise archive.error("parents", f"runs in a circle above keypoint {below}", "make it a tree")
    return tuple(parents)


def _seen(archive: Archive) -> Float[Tensor, "V T J"]:
    """Confidence in the reference (row 0), visibility in the test videos (the other rows)."""
    archive.take("uv", "V T J 2")
    given = _given_weights(archive, "")
    if given is None:
        return archive.weights("visible", "V T J")
    weights = archive.weights(given, "T J")[None]
    if "visible" in archive:
        return torch.cat([weights, archive.weights("visible", "V T J")[1:]])
    return torch.cat([weights, weights.new_zeros(archive.size("V") - 1, *weights.shape[1:])])


def _read_leans(archive: Archive) -> Float[Tensor, "T J"] | None:
    if "leans" not in archive:
        return None
    leans: Tensor = archive.numbers("leans", "T J")
    if not bool((leans.abs() <= 1).all()):
        raise archive.error("leans", "holds NaN or values outside [-1, 1]", "give sines, 0 where they are not known")
    return leans


def _read_ring(archive: Archive, grid: Size) -> tuple[Float[Tensor, "R J 2"] | None, Float[Tensor, "R J"] | None]:
    if "ring_uv" not in archive:
        return None, None
    weights = archive.weights(_given_weights(archive, "ring_") or "ring_visible", "R J")
    uv = archive.where_seen("ring_uv", "R J 2", weights)
    return uv, weights * _inside(uv, grid)


def _given_weights(archive: Archive, prefix: str) -> str | None:
    return next((prefix + word for word in ("weights", "confidence") if prefix + word in archive), None)


def _inside(uv: Float[Tensor, "*shape 2"], grid: Size) -> Float[Tensor, "*shape"]:
    return ((uv >= 0) & (uv <= uv.new_tensor(grid))).all(-1).float()
