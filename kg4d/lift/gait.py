"""A gait shows every limb twice: what the body hides now, the other side has shown or will show, one lag away.

Who walks or swims does with the left side what the right one did half a period ago. So limbs that are not seen need not
be guessed, where those that are seen do move so. Bones are compared as the trunk sees them, mirrored; that the two
sides agree is checked on bones that were seen on both, and bodies of which that is not true are left alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import nearest_rotation

# docs/lift.md: walkers have .1 to .4 at their lag, .9 and 1.15 where a lift is bad; others 1.5 or more, or are in step
_ALIKE = 0.5  # sides may differ by this share of how far they move, in squares
_IN_STEP = 2  # frames; sides that are less apart move together, which is no gait


@dataclass(frozen=True)
class Gait:
    """What the other side says of K bones.

    Attributes:
        lag: Frames by which one side follows the other.
        error: Distance of the two sides where both were seen, root of the mean square over bones, world units.
        children: Lower ends of the bones.
        bones: From the upper end to the lower one, world units.
        hidden: Where the other side was seen and the bone itself was not.
    """

    lag: int
    error: float
    children: Int[Tensor, " K"]
    bones: Float[Tensor, "T K 3"]
    hidden: Bool[Tensor, "T K"]


@torch.no_grad()
def find_gait(
    tracks: Float[Tensor, "T J 3"],
    parents: Int[Tensor, " J"],
    counterparts: Sequence[int],
    weights: Float[Tensor, "T J"],
) -> Gait | None:
    """The gait of a body, if it has one.

    The trunk is the root and what hangs on it; the bones are those below it that have a counterpart. A whole period
    must be in the video.

    Args:
        tracks: Keypoints at T even times, about right where they are seen.
        parents: Parent of each keypoint, -1 where the bone is cut.
        counterparts: The one on the other side, -1 where there is none (`kg4d.keypoints.sides`).
        weights: Positive where it was detected.

    Returns:
        None where no lag makes the sides alike, where they are so in step, or where too little was seen on both.
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
    turns = nearest_rotation(shape.mT @ shape[0])

    def bones_of(ends: list[int]) -> tuple[Float[Tensor, "T K 3"], Bool[Tensor, "T K"]]:
        """As the trunk sees them, and where both of their ends were."""
        starts = [links[j] for j in ends]
        return (tracks[:, ends] - tracks[:, starts]) @ turns, (weights[:, ends] > 0) & (weights[:, starts] > 0)

    own, seen = bones_of(limbs)
    other, shown = bones_of([counterparts[j] for j in limbs])
    other = normalize(other @ mirror, dim=-1) * own[0].norm(dim=-1, keepdim=True)
    share, error, lag = min(
        (*_difference(own, *_told(other, shown, lag), seen), lag) for lag in range(len(tracks) // 2 + 1)
    )
    if share > _ALIKE or lag < _IN_STEP:
        return None
    told, known = _told(other, shown, lag)
    return Gait(lag, error, torch.tensor(limbs, device=tracks.device), told @ turns.mT, known & ~seen)


def _trunk(links: list[int]) -> list[int]:
    """The root that most hangs on, and its children."""

    def root(joint: int) -> int:
        return joint if links[joint] < 0 else root(links[joint])

    roots = [root(joint) for joint in range(len(links))]
    most = max(set(roots), key=roots.count)
    return [joint for joint, parent in enumerate(links) if joint == most or parent == most]


def _told(
    other: Float[Tensor, "T K 3"], shown: Bool[Tensor, "T K"], lag: int
) -> tuple[Float[Tensor, "T K 3"], Bool[Tensor, "T K"]]:
    """What the other side did `lag` frames before and after, the mean of what was shown, and where anything was."""
    frames = len(other)
    total, count = torch.zeros_like(other), torch.zeros_like(other[..., :1])
    for here, there in ((slice(0, frames - lag), slice(lag, frames)), (slice(lag, frames), slice(0, frames - lag))):
        total[here] += other[there] * shown[there][..., None]
        count[here] += shown[there][..., None]
    return total / count.clamp_min(1), count[..., 0] > 0


def _difference(
    own: Float[Tensor, "T K 3"], told: Float[Tensor, "T K 3"], known: Bool[Tensor, "T K"], seen: Bool[Tensor, "T K"]
) -> tuple[float, float]:
    """Squared distance of the two as a share of their squared motion, and its root in world units.

    Infinite where less than one bone's video is known of both.
    """
    both = seen & known
    if int(both.sum()) < len(own):
        return math.inf, math.inf
    share = both[..., None] / both.sum(0).clamp_min(1)[:, None]
    middle = (share * (own + told)).sum(0) / 2
    motion = ((own - middle).square() + (told - middle).square()).sum(-1)[both].mean() / 2
    distance = (own - told).square().sum(-1)[both].mean()
    return float(distance / motion.clamp_min(1e-12)), float(distance.sqrt())
