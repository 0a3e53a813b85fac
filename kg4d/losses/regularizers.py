"""Priors on the motion that no image gives: local rigidity and bones that keep their length."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.geometry.rotations import quat_conjugate, quat_multiply, quat_to_matrix


@dataclass
class RigidityConfig:
    """Local rigidity of the deformed Gaussians (Dynamic 3D Gaussians, Luiten et al. 2024, eq. 5, canonical to t).

    Attributes:
        weight: Factor of the loss; 0 switches it off.
        neighbours: Canonical neighbours of each Gaussian.
        samples: Gaussians drawn at each step.
    """

    weight: float = 1.0
    neighbours: int = 20
    samples: int = 1200


@dataclass
class BonesConfig:
    """Bones between a keypoint and its parent keep their canonical length.

    Attributes:
        weight: Factor of the loss; 0 switches it off.
    """

    weight: float = 100.0


def neighbour_weights(distances: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """exp(-d² / mean d²): near neighbours count more, in any scene unit."""
    squared = distances.square()
    return torch.exp(-squared / squared.mean().clamp_min(1e-12))


def rigidity_loss(
    means: Float[Tensor, "B N 3"],
    quats: Float[Tensor, "B N 4"],
    canonical_means: Float[Tensor, "N 3"],
    canonical_quats: Float[Tensor, "N 4"],
    neighbours: Int[Tensor, "N K"],
    weights: Float[Tensor, "N K"],
    samples: Int[Tensor, " S"],
) -> Float[Tensor, ""]:
    """Mean distance between where a Gaussian's turned frame puts its neighbours and where they are.

    Zero iff every neighbourhood moves as a rigid body whose rotation is that of its centre Gaussian.

    Args:
        means: Deformed centres.
        quats: Deformed rotations; need not be normalised.
        canonical_means: Centres before the deformation.
        canonical_quats: Rotations before the deformation.
        neighbours: Indices of the canonical neighbours.
        weights: Their weights, see `neighbour_weights`.
        samples: The Gaussians to look at in this step.
    """
    near = neighbours[samples]
    rest = canonical_means[near] - canonical_means[samples][:, None]
    moved = means[:, near] - means[:, samples][:, :, None]
    start = torch.nn.functional.normalize(canonical_quats[samples], dim=-1)
    turn = quat_multiply(torch.nn.functional.normalize(quats[:, samples], dim=-1), quat_conjugate(start))
    carried = rest @ quat_to_matrix(turn).mT
    distance = (carried - moved).square().sum(-1).add(1e-10).sqrt()  # the offset keeps the gradient finite at rest
    return (weights[samples] * distance).mean()


def bone_lengths(points: Float[Tensor, "*B J 3"], parents: Int[Tensor, " J"]) -> Float[Tensor, "*B bones"]:
    """Distances of the keypoints that have a parent to that parent, world units."""
    children = torch.nonzero(parents >= 0)[:, 0]
    offsets = points[..., children, :] - points[..., parents[children], :]
    return offsets.square().sum(-1).add(1e-12).sqrt()


def bone_loss(
    points: Float[Tensor, "B J 3"], rest_points: Float[Tensor, "J 3"], parents: Int[Tensor, " J"]
) -> Float[Tensor, ""]:
    """Mean squared change of the bone lengths against rest; 0 where the skeleton has no bone."""
    if not bool((parents >= 0).any()):
        return points.new_zeros(())
    return (bone_lengths(points, parents) - bone_lengths(rest_points, parents)).square().mean()
