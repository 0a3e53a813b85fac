"""Where the frames of a skinned motion start, and which Gaussians follow them at first."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.model import GaussianModel
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.keypoints.skeleton import bone_distances, bone_rotations
from kg4d.stages.lifting import Lift
from kg4d.stages.seeding import Skeleton


@torch.no_grad()
def rest_keypoints(model: GaussianModel, skeleton: Skeleton, temperature: float) -> Float[Tensor, "J 3"]:
    """Keypoints in frame 0: triangulated, or where a single view shows them the barycentres the static stage found."""
    found = barycentre(assignment(model.keypoint_logits, temperature), model.means)
    return torch.where(skeleton.points.isfinite(), skeleton.points.to(found), found)


@torch.no_grad()
def start_handles(
    deformation: SkinnedDeformation,
    model: GaussianModel,
    skeleton: Skeleton,
    rest: Float[Tensor, "J 3"],
    times: Float[Tensor, " T"],
    lift: Lift | None,
) -> None:
    """Put the frames on the lifted tracks (at rest without a lift) and give each Gaussian to the bones near it.

    The keypoint features of `model` are shares of the frames from here on, no longer weights of barycentres.
    """
    parents = skeleton.parents.to(rest.device)
    tracks = rest.expand(len(times), -1, -1) if lift is None else lift.tracks
    deformation.set_keys(times, rest, tracks, bone_rotations(rest, tracks, parents))
    shares = deformation.config
    model.keypoint_logits.copy_(
        skin_logits(model.means, rest, parents, skeleton.known.to(rest.device), shares.temperature, shares.sigma)
    )


def skin_logits(
    means: Float[Tensor, "N 3"],
    rest: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    known: Bool[Tensor, " J"],
    temperature: float,
    sigma: float,
    limit: float = 40.0,
) -> Float[Tensor, "N J"]:
    """Logits whose softmax over J at `temperature` is a normal window around each frame's bones.

    Args:
        means: Centres of the Gaussians, world units.
        rest: Keypoints in frame 0.
        parents: Parent of each keypoint, -1 where the bone is cut.
        known: Frames that are not known get nothing.
        temperature: Of that softmax.
        sigma: Width of the window, world units.
        limit: The log weight falls to minus this and no further, so that far Gaussians keep a gradient.
    """
    falloff = (bone_distances(means, rest, parents).square() / (2 * sigma**2)).clamp(max=limit)
    return -temperature * torch.where(known, falloff, limit)
