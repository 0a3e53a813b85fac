"""Rotations as quaternions (w, x, y, z) and as matrices.

Quaternions come from an optimiser, so every function that reads one as a rotation normalises it first.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def quat_multiply(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*#batch 4"]:
    """Hamilton product: the rotation that applies `b` first, then `a`. Norms multiply.

    >>> quat_multiply(torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0]))  # i j = k
    tensor([0., 0., 0., 1.])
    """
    if a.is_cuda:
        return _by_products(a, b, _MULTIPLY)
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def quat_conjugate(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The inverse rotation; it has the norm of `q`."""
    return torch.cat([q[..., :1], -q[..., 1:]], dim=-1)


def quat_rotate(q: Float[Tensor, "*#batch 4"], v: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 3"]:
    """Rotate vectors by quaternions of any norm but zero."""
    q = normalize(q, dim=-1)
    w, axis = q[..., :1], q[..., 1:]
    twist = 2 * _cross(axis, v)
    return v + w * twist + _cross(axis, twist)


def slerp(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"], fraction: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch 4"]:
    """Spherical linear interpolation: the unit quaternion at `fraction` of the shorter rotation from `a` to `b`.

    `fraction` 0 gives exactly `a`, normalised. Nearly equal ends are blended linearly, which keeps gradients finite.
    """
    a, b = normalize(a, dim=-1), normalize(b, dim=-1)
    cosine = (a * b).sum(-1)
    b, cosine = torch.where(cosine[..., None] < 0, -b, b), cosine.abs()
    near = cosine > 1 - 1e-6
    angle = torch.where(near, 0.5, cosine).acos()
    sine = angle.sin()
    first = torch.where(near, 1 - fraction, ((1 - fraction) * angle).sin() / sine)
    second = torch.where(near, fraction, (fraction * angle).sin() / sine)
    return normalize(first[..., None] * a + second[..., None] * b, dim=-1)


def swing(start: Float[Tensor, "*#batch 3"], end: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 4"]:
    """Quaternions, not normalised, of the shortest rotations from one direction to another (swing without twist).

    The vectors may have any length but zero. Between opposite ones no rotation is the shortest; the norm is then tiny
    but not zero, so that neither value nor gradient is NaN.
    """
    start, end = normalize(start, dim=-1), normalize(end, dim=-1)
    real = 1 + (start * end).sum(-1, keepdim=True)
    return torch.cat([real.clamp_min(1e-6), _cross(start, end)], dim=-1)


def quat_to_matrix(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions of any norm but zero; they act on column vectors."""
    q = normalize(q, dim=-1)
    if q.is_cuda:
        change = _by_products(q, q, _TO_MATRIX).reshape(*q.shape[:-1], 3, 3)
        return change + torch.eye(3, dtype=q.dtype, device=q.device)
    w, x, y, z = q.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def matrix_to_quat(R: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions with w >= 0 of rotation matrices.

    The entries of R give the matrix 4 q qᵀ linearly; each of its rows is a multiple of q, and the one with the largest
    diagonal entry has norm >= 2, so neither the value nor the gradient is ever singular, even at rotations by 180°.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in R.unbind(-2))
    outer = torch.stack(
        [
            torch.stack([1 + a + e + i, h - f, c - g, d - b], dim=-1),
            torch.stack([h - f, 1 + a - e - i, b + d, c + g], dim=-1),
            torch.stack([c - g, b + d, 1 - a + e - i, f + h], dim=-1),
            torch.stack([d - b, c + g, f + h, 1 - a - e + i], dim=-1),
        ],
        dim=-2,
    )
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = normalize(outer.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4))[..., 0, :], dim=-1)
    return torch.where(q[..., :1] < 0, -q, q)


@torch.no_grad()
def nearest_rotation(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotations closest to the given matrices in the Frobenius norm (Kabsch 1976); no gradient flows."""
    left, _, right = torch.linalg.svd(matrices)
    signs = torch.ones_like(matrices[..., 0])
    signs[..., 2] = torch.linalg.det(left @ right).sign()
    rotations: Tensor = left * signs[..., None, :] @ right
    return rotations


def _by_products(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"], sums: tuple[tuple[float, ...], ...]
) -> Float[Tensor, "*#batch n"]:
    """Sums of the products of each number of `a` with each of `b`, by one multiplication of matrices.

    A GPU, which waits for calls, is asked for a tenth of them; a CPU mostly takes longer than number by number.
    """
    products = (a[..., :, None] * b[..., None, :]).flatten(-2)
    return products @ _constant(sums, a.dtype, a.device)


def _sums(*sums: str) -> tuple[tuple[float, ...], ...]:
    """Sums of signed products, such as "+xy-wz", as a matrix that turns the 16 products into them."""
    pairs = [first + second for first in "wxyz" for second in "wxyz"]
    return tuple(
        tuple(float(total.count("+" + pair)) - float(total.count("-" + pair)) for total in sums) for pair in pairs
    )


_MULTIPLY = _sums("+ww-xx-yy-zz", "+wx+xw+yz-zy", "+wy-xz+yw+zx", "+wz+xy-yx+zw")
_TO_MATRIX = _sums(  # of the matrix minus the identity
    *("-yy-zz-yy-zz", "+xy-wz+xy-wz", "+xz+wy+xz+wy"),
    *("+xy+wz+xy+wz", "-xx-zz-xx-zz", "+yz-wx+yz-wx"),
    *("+xz-wy+xz-wy", "+yz+wx+yz+wx", "-xx-yy-xx-yy"),
)


@cache
def _constant(rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix that is sent to a device once."""
    return torch.tensor(rows, dtype=dtype, device=device)


def _cross(a: Float[Tensor, "*#batch 3"], b: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 3"]:
    """Cross product that broadcasts over any leading axes (torch's wants as many on both sides)."""
    ax, ay, az = a.unbind(-1)
    bx, by, bz = b.unbind(-1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=-1)
