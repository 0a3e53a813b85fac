"""Skinning: points that follow several rigid frames by shares, as blended matrices or as blended dual quaternions.

A frame turns about its own place at rest and carries it along: x goes to R (x - rest) + rest + shift. All blends are
written as what they add to the point at rest, so frames that do not move leave every point where it is, to the bit.
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
    """What skinning makes of N points at B times."""

    points: Float[Tensor, "B N 3"]
    turns: Float[Tensor, "B N 4"]  # unit quaternions: how the surroundings of each point have turned since rest


def linear_blend(
    points: Float[Tensor, "N 3"],
    shares: Float[Tensor, "N J"],
    rest: Float[Tensor, "J 3"],
    shifts: Float[Tensor, "B J 3"],
    quats: Float[Tensor, "B J 4"],
) -> Skinned:
    """Linear blend skinning; the turns are normalised means of the quaternions.

    Args:
        points: At rest, world units.
        shares: Share of each frame in each point; rows sum to 1.
        rest: Places of the frames at rest, about which they turn.
        shifts: How far each frame has gone.
        quats: Rotations of the frames since rest; any norm but zero.
    """
    change = quat_to_matrix(quats) - torch.eye(3, dtype=quats.dtype, device=quats.device)
    offset = shifts - (change @ rest[..., None])[..., 0]
    blended = shares @ torch.cat([change.flatten(2), offset], dim=-1)
    turned = (blended[..., :9].reshape(*blended.shape[:-1], 3, 3) @ points[..., None])[..., 0]
    return Skinned(points + turned + blended[..., 9:], _mean_turns(shares, quats).turns)


def dual_quaternion_blend(
    points: Float[Tensor, "N 3"],
    shares: Float[Tensor, "N J"],
    rest: Float[Tensor, "J 3"],
    shifts: Float[Tensor, "B J 3"],
    quats: Float[Tensor, "B J 4"],
) -> Skinned:
    """Dual quaternion skinning: every point moves rigidly, so a bent or twisted limb keeps its thickness.

    The arguments are those of `linear_blend`.
    """
    unit = normalize(quats, dim=-1)
    mean = _mean_turns(shares, unit)
    # x -> R x + (rest + shift - R rest): the dual part is half of that translation times the rotation
    translation = shifts - _turned(unit, rest)
    dual = 0.5 * quat_multiply(_pure(translation), unit)
    # blended over the norm of the blended rotation; the scalar part of the product, which no motion has, is dropped
    moved = 2 * quat_multiply(mean.shares @ dual / mean.norms, quat_conjugate(mean.turns))[..., 1:]
    return Skinned(points + _turned(mean.turns, points) + moved, mean.turns)


class _MeanTurns(NamedTuple):
    shares: Float[Tensor, "B N J"]  # with the sign that brings each quaternion to the side of the main one
    turns: Float[Tensor, "B N 4"]  # unit
    norms: Float[Tensor, "B N 1"]  # of the mean before it was normalised


def _mean_turns(shares: Float[Tensor, "N J"], quats: Float[Tensor, "B J 4"]) -> _MeanTurns:
    """Means of the unit quaternions, each on the side of the one with the largest share (q and -q are one turn)."""
    unit = normalize(quats, dim=-1)
    with torch.no_grad():
        signs = torch.where(unit @ unit.mT < 0, -1.0, 1.0).to(unit)[:, shares.argmax(-1)]
    signed = shares * signs
    mean = signed @ unit
    norms = mean.norm(dim=-1, keepdim=True)
    return _MeanTurns(signed, mean / norms, norms)


def _turned(quats: Float[Tensor, "B M 4"], points: Float[Tensor, "M 3"]) -> Float[Tensor, "B M 3"]:
    """R x - x, exactly 0 where nothing turns."""
    points = points.expand(*quats.shape[:-1], 3)
    axis = quats[..., 1:]
    twist = 2 * torch.linalg.cross(axis, points)
    change: Tensor = quats[..., :1] * twist + torch.linalg.cross(axis, twist)
    return change


def _pure(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    return torch.cat([torch.zeros_like(vectors[..., :1]), vectors], dim=-1)
