"""Where keypoints are at rest, before a motion starts, and where they are once it has been fitted."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton


@torch.no_grad()
def rest_keypoints(gaussians: GaussianState, skeleton: Skeleton, temperature: float) -> Float[Tensor, "J 3"]:
    """Keypoints in frame 0: triangulated, or barycentres of the static stage where fewer than two views show them."""
    found = barycentre(assignment(gaussians.keypoint_logits, temperature), gaussians.means)
    return torch.where(skeleton.points.isfinite(), skeleton.points.to(found), found)


@torch.no_grad()
def settled_keypoints(positions: Float[Tensor, "T J 3"], lift: Lift, cameras: Cameras) -> Float[Tensor, "T J 3"]:
    """Where the keypoints of a fitted motion are: on the lines on which they were seen.

    A frame ends where it carries the Gaussians best, and that is not quite its keypoint. But a keypoint that was
    detected is on the line of sight that the lift has for it: it goes there by the shortest way, as far as its
    detection is believed. How far away it is along that line the frame knows as well as the lift does.

    Args:
        positions: World positions of the frames at the key times, which are those of the lift.
        lift: Where the motion started.
        cameras: T cameras.
    """
    offsets = lift.tracks - positions
    sight = normalize(lift.tracks - cameras.centers[:, None], dim=-1)
    across = offsets - (offsets * sight).sum(-1, keepdim=True) * sight
    return positions + lift.reliability * lift.trust[..., None] * across
