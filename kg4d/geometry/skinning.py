"""Skinning: each point follows several rigid frames by weights, blended as matrices or as dual quaternions.

A frame rotates about its own position at rest and is then translated: x goes to R (x - rest) + rest + translation. All
blends are written as what they add to the point at rest, so frames that do not move leave every point exactly where it
was, to the last bit.

Sources: Magnenat-Thalmann et al. 1988 (linear blending); Kavan et al. 2008, "Geometric skinning with approximate dual
quaternion blending", sections 3 and 4.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import quat_conjugate, quat_multiply, quat_to_matrix


class Skinned(NamedTuple):
    """N skinned points at B times."""

    points: Float[Tensor, "B N 3"]
    rotations: Float[Tensor, "B N 4"]  # unit quaternions (wxyz): how the neighbourhood of each point has rotated


def linear_blend(
    points: Float[Tensor, "N 3"],
    weights: Float[Tensor, "N J"],
    rest: Float[Tensor, "J 3"],
    translations: Float[Tensor, "B J 3"],
    quats: Float[Tensor, "B J 4"],
) -> Skinned:
    """Linear blend skinning; the rotations are normalised means of the quaternions.

    Args:
        points: Points at rest, world units.
        weights: Skinning weights: how much each point follows each frame. Rows sum to 1.
        rest: Positions of the frames at rest, about which they rotate, world units.
        translations: Translation of each frame since rest, world units.
        quats: Rotation of each frame since rest, wxyz; any norm but zero.
    """
    change = quat_to_matrix(quats) - torch.eye(3, dtype=quats.dtype, device=quats.device)
    offset = translations - (change @ rest[..., None])[..., 0]
    blended = weights @ torch.cat([change.flatten(2), offset], dim=-1)
    rotated = (blended[..., :9].reshape(*blended.shape[:-1], 3, 3) @ points[..., None])[..., 0]
    return Skinned(points + rotated + blended[..., 9:], _mean_rotations(weights, quats).quats)


def dual_quaternion_blend(
    points: Float[Tensor, "N 3"],
    weights: Float[Tensor, "N J"],
    rest: Float[Tensor, "J 3"],
    translations: Float[Tensor, "B J 3"],
    quats: Float[Tensor, "B J 4"],
) -> Skinned:
    """Dual quaternion skinning: every point moves rigidly, so a bent or twisted limb keeps its thickness.

    The arguments are those of `linear_blend`.
    """
    unit = normalize(quats, dim=-1)
    mean = _mean_rotations(weights, unit)
    # x -> R x + (rest + translation - R rest): the dual part is half of the bracket times the rotation
    offset = translations - _rotation_change(unit, rest)
    dual = 0.5 * quat_multiply(_pure(offset), unit)
    # Divide by the norm of the blended rotation. The scalar part of the product, zero in any rigid motion, is dropped.
    moved = 2 * quat_multiply(mean.weights @ dual / mean.norms, quat_conjugate(mean.quats))[..., 1:]
    return Skinned(points + _rotation_change(mean.quats, points) + moved, mean.quats)


class _MeanRotations(NamedTuple):
    weights: Float[Tensor, "B N J"]  # signed, so that each quaternion lies on the same side as the main one
    quats: Float[Tensor, "B N 4"]  # unit
    norms: Float[Tensor, "B N 1"]  # of the mean before it was normalised


def _mean_rotations(weights: Float[Tensor, "N J"], quats: Float[Tensor, "B J 4"]) -> _MeanRotations:
    """Weighted means of unit quaternions, each with the sign that brings it closest to the one of largest weight.

    The sign is free, since q and -q are the same rotation.
    """
    unit = normalize(quats, dim=-1)
    with torch.no_grad():
        signs = torch.where(unit @ unit.mT < 0, -1.0, 1.0).to(unit)[:, weights.argmax(-1)]
    signed = weights * signs
    mean = signed @ unit
    norms = mean.norm(dim=-1, keepdim=True)
    return _MeanRotations(signed, mean / norms, norms)


def _rotation_change(quats: Float[Tensor, "B M 4"], points: Float[Tensor, "M 3"]) -> Float[Tensor, "B M 3"]:
    """R x - x, exactly 0 for the identity."""
    points = points.expand(*quats.shape[:-1], 3)
    axis = quats[..., 1:]
    twist = 2 * torch.linalg.cross(axis, points)
    change: Tensor = quats[..., :1] * twist + torch.linalg.cross(axis, twist)
    return change


def _pure(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    return torch.cat([torch.zeros_like(vectors[..., :1]), vectors], dim=-1)
