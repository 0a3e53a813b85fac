"""Gait: the two sides of a body that walks or swims move alike, some frames apart, so one shows what the other hides.

The left side does what the right one did half a period ago. If that holds for the limbs that are seen, the hidden ones
need not be guessed. Bones of the two sides are compared in the axes of the trunk, one side mirrored. Whether they agree
is checked on bones that were seen on both sides; if they do not, the body has no gait.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import nearest_rotation

# evidence/lift_log.md: walkers have .1 to .4 at their lag, .9 and 1.15 where a lift is bad; others 1.5 or more, or are
# in step
_ALIKE = 0.5  # largest squared difference of the two sides, relative to their squared motion
_IN_STEP = 2  # frames; sides with a smaller lag move together, which is no gait


@dataclass(frozen=True)
class Gait:
    """What the other side of the body shows of K bones.

    Attributes:
        lag: Frames by which one side follows the other.
        error: Root mean square distance between the bones of the two sides where both were seen, world units.
        children: Keypoints at the lower ends of the bones.
        bones: Vectors from the upper to the lower ends as the other side shows them, world units and axes.
        hidden: Where the bone itself was not seen, but its counterpart was.
    """

    lag: int
    error: float
    children: Int[Tensor, " K"]
    bones: Float[Tensor, "T K 3"]
    hidden: Bool[Tensor, "T K"]


class _Bones(NamedTuple):
    """K bones of one side."""

    vectors: Float[Tensor, "T K 3"]  # from the upper to the lower end
    seen: Bool[Tensor, "T K"]  # both ends were detected


@torch.no_grad()
def find_gait(
    tracks: Float[Tensor, "T J 3"],
    parents: Int[Tensor, " J"],
    counterparts: Sequence[int],
    weights: Float[Tensor, "T J"],
) -> Gait | None:
    """The gait of a body, if it has one.

    The trunk consists of the root and its children; the limbs are the bones below it that have a counterpart. Lags up
    to half the video are tried, so it must show a whole period.

    Args:
        tracks: Keypoints at T evenly spaced times, world units; must be roughly right where they were seen.
        parents: Parent of each keypoint; -1 where there is no bone.
        counterparts: Index of each keypoint on the other side of the body; -1 where there is none
            (`kg4d.keypoints.sides`).
        weights: Positive where the keypoint was detected.

    Returns:
        None where the sides are not alike at any lag, where they move in step, or where too little was seen of both.
    """
    links: list[int] = parents.tolist()
    trunk = _trunk(links)
    pairs = [(j, counterparts[j]) for j in trunk if counterparts[j] in trunk]
    limbs = [j for j, k in enumerate(counterparts) if k >= 0 and j not in trunk and min(links[j], links[k]) >= 0]
    if not pairs or not limbs:
        return None
    across = normalize(torch.stack([tracks[0, j] - tracks[0, k] for j, k in pairs if j < k]).sum(0), dim=0)
    mirror = torch.eye(3).to(tracks) - 2 * across[:, None] * across
    shape = tracks[:, trunk] - tracks[:, trunk].mean(1, keepdim=True)
    rotations = nearest_rotation(shape.mT @ shape[0])  # of the trunk since the first frame
    own = _bones(tracks, weights, links, limbs, rotations)
    other = _bones(tracks, weights, links, [counterparts[j] for j in limbs], rotations)
    lengths = own.vectors[0].norm(dim=-1, keepdim=True)
    other = _Bones(normalize(other.vectors @ mirror, dim=-1) * lengths, other.seen)
    differences = [_difference(own, _at_lag(other, lag)) for lag in range(len(tracks) // 2 + 1)]
    lag = min(range(len(differences)), key=differences.__getitem__)
    relative, error = differences[lag]
    if relative > _ALIKE or lag < _IN_STEP:
        return None
    shown = _at_lag(other, lag)
    children = torch.tensor(limbs, device=tracks.device)
    return Gait(lag, error, children, shown.vectors @ rotations.mT, shown.seen & ~own.seen)


def _trunk(links: list[int]) -> list[int]:
    """The root that most keypoints hang on, and its children."""

    def root(joint: int) -> int:
        return joint if links[joint] < 0 else root(links[joint])

    roots = [root(joint) for joint in range(len(links))]
    most = max(set(roots), key=roots.count)
    return [joint for joint, parent in enumerate(links) if joint == most or parent == most]


def _bones(
    tracks: Float[Tensor, "T J 3"],
    weights: Float[Tensor, "T J"],
    links: list[int],
    lower_ends: list[int],
    rotations: Float[Tensor, "T 3 3"],
) -> _Bones:
    """The bones above `lower_ends`, in the axes of a trunk with these rotations."""
    upper_ends = [links[j] for j in lower_ends]
    seen = (weights[:, lower_ends] > 0) & (weights[:, upper_ends] > 0)
    return _Bones((tracks[:, lower_ends] - tracks[:, upper_ends]) @ rotations, seen)


def _at_lag(bones: _Bones, lag: int) -> _Bones:
    """Mean of the bones `lag` frames earlier and later, as far as they were seen, and where either was."""
    frames = len(bones.seen)
    early, late = slice(0, frames - lag), slice(lag, frames)
    total, count = torch.zeros_like(bones.vectors), torch.zeros_like(bones.vectors[..., :1])
    for target, source in ((early, late), (late, early)):
        total[target] += bones.vectors[source] * bones.seen[source][..., None]
        count[target] += bones.seen[source][..., None]
    return _Bones(total / count.clamp_min(1), count[..., 0] > 0)


def _difference(own: _Bones, other: _Bones) -> tuple[float, float]:
    """Squared distance of the two sides relative to their squared motion, and the distance itself in world units.

    Infinite where the bones seen on both sides, counted over all frames, are fewer than the frames.
    """
    both = own.seen & other.seen
    if int(both.sum()) < len(both):
        return math.inf, math.inf
    weight = both[..., None] / both.sum(0).clamp_min(1)[:, None]
    middle = (weight * (own.vectors + other.vectors)).sum(0) / 2
    motion = ((own.vectors - middle).square() + (other.vectors - middle).square()).sum(-1)[both].mean() / 2
    distance = (own.vectors - other.vectors).square().sum(-1)[both].mean()
    return float(distance / motion.clamp_min(1e-12)), float(distance.sqrt())
