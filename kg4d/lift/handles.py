"""Handles of a skinned motion: where the keypoint frames start, which Gaussians follow them, where keypoints end."""

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
    """World positions of the keypoints in frame 0.

    Those that were triangulated are taken as they are; the others are the barycentres to which the static stage has
    fitted the keypoint features, whose softmax has this `temperature`.
    """
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
    """Put the keypoint frames on the lifted tracks, and let each Gaussian follow the bones near it.

    From here on the keypoint features of `model` are logits of skinning weights, and no longer weights of barycentres.

    Args:
        deformation: Its frames are set.
        model: Its keypoint features are set.
        skeleton: The bones, and which keypoints are known.
        rest: Keypoints in frame 0, world units.
        times: Key times of the motion in [0, 1]; those of the lift's tracks.
        lift: On the device of `rest`. Without one the frames stay at rest.
    """
    parents = skeleton.parents.to(rest.device)
    tracks = rest.expand(len(times), -1, -1) if lift is None else lift.tracks
    deformation.set_keys(times, rest, tracks, bone_rotations(rest, tracks, parents))
    known, config = skeleton.known.to(rest.device), deformation.config
    logits = skinning_logits(model.means, rest, parents, known, temperature=config.temperature, sigma=config.sigma)
    model.keypoint_logits.copy_(logits)


@torch.no_grad()
def refit_keypoints(deformation: SkinnedDeformation, lift: Lift, cameras: Cameras) -> None:
    """Move the keypoints of a fitted motion towards their lines of sight; its frames and Gaussians stay.

    A frame ends where it carries the Gaussians best, which is not quite where its keypoint is. A keypoint that was
    detected, however, lies on the line of sight through its lifted position. It moves towards that line by the shortest
    way, by a fraction of `overall_confidence` times `detection_confidence`. Its position along the line stays: the fit
    knows it as well as the lift does.

    Args:
        deformation: The fitted motion; its key times are those of the lift.
        lift: The lift that the motion started from.
        cameras: The camera of each of the T frames.
    """
    positions = deformation.rest + deformation.keys()[0]
    offsets = lift.tracks - positions
    sight = normalize(lift.tracks - cameras.centers[:, None], dim=-1)
    across = offsets - (offsets * sight).sum(-1, keepdim=True) * sight
    deformation.set_keypoints(positions + lift.overall_confidence * lift.detection_confidence[..., None] * across)


def skinning_logits(
    means: Float[Tensor, "N 3"],
    rest: Float[Tensor, "J 3"],
    parents: Int[Tensor, " J"],
    known: Bool[Tensor, " J"],
    *,
    temperature: float,
    sigma: float,
) -> Float[Tensor, "N J"]:
    """Logits of skinning weights that fall off as a Gaussian window around the bones of each frame.

    Args:
        means: Centres of the Gaussians, world units.
        rest: Keypoints in frame 0, world units.
        parents: Parent of each keypoint; -1 where the bone is cut.
        known: Which keypoints have a frame; the others get no weight.
        temperature: Temperature of the softmax over J that makes weights of the logits.
        sigma: Standard deviation of the window, world units.
    """
    return temperature * torch.where(known, log_window(bone_distances(means, rest, parents), sigma), -FAR)
