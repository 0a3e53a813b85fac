"""Left and right of a detector that looks at each image by itself, and takes a body's front for its back at times.

Then all of its left keypoints are those on the right. Which images are flipped is found from the others: in a video by
what moves least, in views of one moment by what has a place in space.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.triangulation import agreement
from kg4d.priors.base import KeypointTracks

_FAR = 0.2  # of the body's size: moves beyond it count alike, as they are mistakes
_TOLERANCE = 0.1  # of the body's size: distance above which a view counts as wrong
_FLIP_COST = 0.02  # of the body's size: motion of each keypoint that exchanging a frame must save, as limbs cross too
_TIE = 1e-3  # so that of two equally likely answers the one with fewer flipped views is taken
_ROUNDS = 4


def flipped(tracks: KeypointTracks, others: list[int], flips: Bool[Tensor, " M"]) -> KeypointTracks:
    """The tracks with left and right exchanged in some images.

    Args:
        tracks: Keypoints in M images.
        others: Index of the counterpart of each keypoint, -1 where there is none (`kg4d.keypoints.sides`).
        flips: In which images.
    """
    other = torch.tensor([j if k < 0 else k for j, k in enumerate(others)])

    def exchanged(values: Tensor) -> Tensor:
        there = flips.reshape(-1, *([1] * (values.ndim - 1)))
        return torch.where(there, values[:, other], values)

    depths = None if tracks.depths is None else exchanged(tracks.depths)
    return KeypointTracks(exchanged(tracks.uv), exchanged(tracks.weights), depths)


def unflipped_video(tracks: KeypointTracks, others: list[int]) -> KeypointTracks:
    """The tracks of a video with left and right as in most frames; see `flips_in_video`."""
    return flipped(tracks, others, flips_in_video(tracks, others))


def flips_in_video(tracks: KeypointTracks, others: list[int]) -> Bool[Tensor, " T"]:
    """The frames of a video in which left and right are exchanged: the path of least motion (Viterbi 1967).

    A frame is exchanged only if that saves clear motion: legs that cross move least when they change their names.
    """
    count = len(tracks.uv)
    flags = torch.tensor([False, True])
    both = [flipped(tracks, others, flag.expand(count)) for flag in flags]
    size = body_size(tracks)
    dear = _FLIP_COST * flags * tracks.weights.square().sum(1, keepdim=True)
    costs, back = dear[0], []
    for frame in range(1, count):
        steps = torch.stack(
            [torch.stack([_motion(both[a], frame - 1, both[b], frame, size) for b in (0, 1)]) for a in (0, 1)]
        )
        steps = costs[:, None] + steps + dear[frame]
        costs, came = steps.min(0)
        back.append(came)
    state = int(costs.argmin())
    states = [state]
    for came in reversed(back):
        states.append(state := int(came[state]))
    return torch.tensor(states[::-1]).bool()


def unflipped_views(tracks: KeypointTracks, others: list[int], cameras: Cameras) -> KeypointTracks:
    """The keypoints of views of one moment with left and right as in the first view, by triangulation.

    View after view is flipped if that makes the views agree better, until none is.

    Args:
        tracks: Keypoints in M views; the first view is right.
        others: As in `flipped`.
        cameras: The M cameras.
    """
    tolerance = _TOLERANCE * body_size(tracks)

    def agreeing(flips: Bool[Tensor, " M"]) -> float:
        found = flipped(tracks, others, flips)
        agreed = agreement(found.uv, found.weights, cameras, tolerance_px=max(tolerance, 1e-3))
        return float((found.weights * agreed).sum()) - _TIE * float(flips.sum())

    flips = torch.zeros(len(tracks.uv), dtype=torch.bool)
    best = agreeing(flips)
    for _ in range(_ROUNDS):
        before = flips
        for view in range(1, len(flips)):
            tried = flips.clone()
            tried[view] = ~tried[view]
            if (value := agreeing(tried)) > best:
                flips, best = tried, value
        if flips is before:
            break
    return flipped(tracks, others, flips)


def _motion(a: KeypointTracks, before: int, b: KeypointTracks, frame: int, size: float) -> Float[Tensor, ""]:
    moved = (b.uv[frame] - a.uv[before]).norm(dim=-1) / size
    cost: Tensor = (a.weights[before] * b.weights[frame] * moved.clamp_max(_FAR)).sum()
    return cost


def body_size(tracks: KeypointTracks) -> float:
    """The longer side of the box of the keypoints that are seen, in px: its median over the images that show two."""
    seen = (tracks.weights > 0)[..., None]
    lowest = torch.where(seen, tracks.uv, torch.inf).amin(1)
    highest = torch.where(seen, tracks.uv, -torch.inf).amax(1)
    shown = seen[..., 0].sum(1) > 1
    extents = (highest - lowest).amax(-1)[shown]
    return max(1e-6, float(extents.median())) if len(extents) else 1e-6
