"""Rotations of space and time, R^4, as pairs of unit quaternions.

A vector (x, y, z, t) is the quaternion p = t + x i + y j + z k. Every rotation of R^4 is p -> l p conj(r) with unit
quaternions l and r, which are unique up to a common sign (Cayley; Duan et al. 2024, "4D-Rotor Gaussian Splatting",
have the same group as one rotor of 8 numbers). The pair needs no further constraint: whatever an optimiser makes of the
8 numbers, normalised they are a rotation, while a rotor must also be kept free of what is no rotation. With l = r the
axis of time stays, and space turns by the quaternion r.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.geometry.rotations import quat_conjugate, quat_multiply


def pair_to_matrix(left: Float[Tensor, "*batch 4"], right: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The rotation matrices, in the order x, y, z, t, of pairs of quaternions (w, x, y, z) of any norm but zero."""
    left, right = normalize(left, dim=-1), normalize(right, dim=-1)
    basis = torch.eye(4, dtype=left.dtype, device=left.device)
    images = quat_multiply(quat_multiply(left[..., None, :], basis), quat_conjugate(right)[..., None, :])
    return images.roll((-1, -1), (-2, -1)).mT  # t comes last


@torch.no_grad()
def matrix_to_pair(R: Float[Tensor, "*batch 4 4"]) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 4"]]:
    """A pair of unit quaternions of each rotation matrix; no gradient flows.

    R is linear in the 16 products l_a r_b, and the matrices that it is a sum of are orthogonal. So each product is a
    scalar product with R; of the matrix of all products, which has rank one, any column is l and any row is r.
    """
    basis = torch.eye(4, dtype=R.dtype, device=R.device)
    lefts, rights = basis[:, None].expand(4, 4, 4), basis[None].expand(4, 4, 4)
    products = torch.einsum("...ij,abij->...ab", R, pair_to_matrix(lefts, rights)) / 4
    largest = products.norm(dim=-2).argmax(-1)[..., None, None]
    left = normalize(products.gather(-1, largest.expand(*products.shape[:-1], 1))[..., 0], dim=-1)
    return left, normalize((left[..., None, :] @ products)[..., 0, :], dim=-1)
