"""Where the keypoints of a motion are at rest, before it starts, and once it has been fitted."""

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
    """World positions of the keypoints in frame 0.

    Those that were triangulated are taken as they are; the others are the barycentres to which the static stage has
    fitted the keypoint features, whose softmax has this `temperature`.
    """
    found = barycentre(assignment(gaussians.keypoint_logits, temperature), gaussians.means)
    points = skeleton.points.to(found)
    return torch.where(points.isfinite(), points, found)


@torch.no_grad()
def refitted_keypoints(positions: Float[Tensor, "T J 3"], lift: Lift, cameras: Cameras) -> Float[Tensor, "T J 3"]:
    """Move the keypoints of a fitted motion from its frames towards their lines of sight.

    A frame ends where it carries the Gaussians best, which is not quite where its keypoint is. A keypoint that was
    detected, however, lies on the line of sight through its lifted position. It moves towards that line by the shortest
    way, by a fraction of `overall_confidence` times `detection_confidence`. Its position along the line stays: the fit
    knows it as well as the lift does.

    Args:
        positions: World positions of the frames at the key times, which are those of the lift.
        lift: The lift that the motion started from.
        cameras: The camera of each of the T frames.
    """
    offsets = lift.tracks - positions
    sight = normalize(lift.tracks - cameras.centers[:, None], dim=-1)
    across = offsets - (offsets * sight).sum(-1, keepdim=True) * sight
    return positions + lift.overall_confidence * lift.detection_confidence[..., None] * across
