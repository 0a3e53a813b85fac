"""Where the frames of a skinned motion start, which Gaussians follow them at first, where the keypoints are at last."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.model import GaussianModel
from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.barycentre import FAR, assignment, barycentre, log_window
from kg4d.keypoints.skeleton import bone_distances, bone_rotations
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton


@torch.no_grad()
def rest_keypoints(model: GaussianModel, skeleton: Skeleton, temperature: float) -> Float[Tensor, "J 3"]:
    """Keypoints in frame 0: triangulated, or barycentres of the static stage where fewer than two views show them."""
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

    Args:
        deformation: Gets the frames.
        model: Gets the shares.
        skeleton: Between the keypoints.
        rest: Keypoints in frame 0, world units.
        times: Key times; those of the lift's tracks.
        lift: On the device of `rest`.
    """
    parents = skeleton.parents.to(rest.device)
    tracks = rest.expand(len(times), -1, -1) if lift is None else lift.tracks
    deformation.set_keys(times, rest, tracks, bone_rotations(rest, tracks, parents))
    shares = deformation.config
    model.keypoint_logits.copy_(
        skin_logits(model.means, rest, parents, skeleton.known.to(rest.device), shares.temperature, shares.sigma)
    )


@torch.no_grad()
def settle_keypoints(deformation: SkinnedDeformation, lift: Lift, cameras: Cameras) -> None:
    """Put the keypoints of a fitted motion where they were seen.

    A frame ends where it carries the Gaussians best, and that is not quite its keypoint. But a keypoint that was
    detected is on the line of sight that the lift has for it: it goes there by the shortest way, as far as its
    detection is believed. How far away it is along that line the frame knows as well as the lift does.

    Args:
        deformation: Fitted; its key times are those of the lift.
        lift: Where the motion started.
        cameras: T cameras.
    """
    places = deformation.rest + deformation.keys()[0]
    offsets = lift.tracks - places
    sight = normalize(lift.tracks - cameras.centers[:, None], dim=-1)
    across = offsets - (offsets * sight).sum(-1, keepdim=True) * sight
    deformation.set_keypoints(places + lift.reliability * lift.trust[..., None] * across)


def skin_logits(
    means: Float[Tensor, "N 3"],
    rest: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    known: Bool[Tensor, " J"],
    temperature: float,
    sigma: float,
) -> Float[Tensor, "N J"]:
    """Logits whose softmax over J at `temperature` is a normal window around each frame's bones.

    Args:
        means: Centres of the Gaussians, world units.
        rest: Keypoints in frame 0.
        parents: Parent of each keypoint, -1 where the bone is cut.
        known: Frames that are not known get nothing.
        temperature: Of that softmax.
        sigma: Width of the window, world units.
    """
    return temperature * torch.where(known, log_window(bone_distances(means, rest, parents), sigma), -FAR)
