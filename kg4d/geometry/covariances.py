"""Covariances of 3D Gaussians as six numbers: xx, xy, xz, yy, yz, zz."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.rotations import matrix_to_quat, quat_to_matrix


class Ellipsoids(NamedTuple):
    """The shapes of Gaussians as rotated axes."""

    quats: Float[Tensor, "*batch 4"]  # (w, x, y, z)
    scales: Float[Tensor, "*batch 3"]  # standard deviations along the local axes


def packed(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The six numbers of symmetric matrices, of which the upper half is read.

    >>> packed(torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]]))
    tensor([1., 2., 3., 4., 5., 6.])
    """
    (xx, xy, xz), (_, yy, yz), (_, _, zz) = (row.unbind(-1) for row in matrices.unbind(-2))
    return torch.stack([xx, xy, xz, yy, yz, zz], dim=-1)


def unpacked(covariances: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """The symmetric matrices of six numbers each."""
    xx, xy, xz, yy, yz, zz = covariances.unbind(-1)
    rows = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=-1)
    return rows.reshape(*covariances.shape[:-1], 3, 3)


def covariances_of(quats: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 6"]:
    """The covariances R diag(s²) Rᵀ of rotated axes; quaternions of any norm but zero."""
    factor = quat_to_matrix(quats) * scales[..., None, :]
    return packed(factor @ factor.mT)


@torch.no_grad()
def ellipsoids_of(covariances: Float[Tensor, "*batch 6"]) -> Ellipsoids:
    """Axes of covariances, the shortest first; no gradient flows, for that of equal axes is not defined.

    Scales are at least 1e-6 of the longest one: of a flat Gaussian, rounding may make less than nothing.
    """
    variances, axes = torch.linalg.eigh(unpacked(covariances).double())
    axes = axes * torch.linalg.det(axes).sign()[..., None, None]  # a rotation: of three axes, turning all is a mirror
    scales = variances.clamp_min(0).sqrt()
    scales = scales.clamp_min(1e-30).maximum(1e-6 * scales[..., -1:])
    return Ellipsoids(matrix_to_quat(axes).to(covariances), scales.to(covariances))


def rotated_covariances(
    covariances: Float[Tensor, "*batch 6"], rotation: Float[Tensor, "3 3"]
) -> Float[Tensor, "*batch 6"]:
    """The covariances R C Rᵀ of rotated Gaussians."""
    return packed(rotation @ unpacked(covariances) @ rotation.mT)
