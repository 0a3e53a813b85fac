"""Real spherical harmonics up to degree 3: colours that depend on the direction in which a Gaussian is seen.

The convention is that of 3D Gaussian splatting (Kerbl et al. 2023) and of gsplat: a colour is 0.5 + sum_k Y_k(d) c_k,
not below 0, where d is the unit direction from the camera's centre to the Gaussian's centre, in world axes. Here the
part of degree 0 is kept as the colour that it makes, and what is called harmonics are the coefficients above it. The
polynomials are those of Sloan 2013, "Efficient spherical harmonic evaluation".
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.degrees import harmonics_count, harmonics_degree

SH_C0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic Y_00

_Y1 = math.sqrt(3 / math.pi) / 2
_Y2_XY, _Y2_ZZ, _Y2_XX = (math.sqrt(n / math.pi) / 4 for n in (60, 5, 15))
_Y3_XXX, _Y3_XYZ, _Y3_ZZX, _Y3_ZZZ, _Y3_XXZ = (math.sqrt(n / math.pi) / 4 for n in (35 / 2, 420, 21 / 2, 7, 105))


def rgb_to_sh0(rgb: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Degree-0 coefficients c of colours in [0, 1], by the convention of 3DGS files: colour = 0.5 + Y_00 c."""
    return (rgb - 0.5) / SH_C0


def harmonics_basis(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch K"]:
    """Values of the harmonics of degree 1 to `degree`, lower degrees first.

    Args:
        directions: Unit vectors.
        degree: From 1 to 3.
    """
    x, y, z = directions.unbind(-1)
    values = [-_Y1 * y, _Y1 * z, -_Y1 * x]
    xx, yy, zz = x * x, y * y, z * z
    if degree >= 2:
        values += [_Y2_XY * x * y, -_Y2_XY * y * z, _Y2_ZZ * (2 * zz - xx - yy), -_Y2_XY * x * z, _Y2_XX * (xx - yy)]
    if degree >= 3:
        values += [
            -_Y3_XXX * y * (3 * xx - yy),
            _Y3_XYZ * x * y * z,
            -_Y3_ZZX * y * (4 * zz - xx - yy),
            _Y3_ZZZ * z * (2 * zz - 3 * xx - 3 * yy),
            -_Y3_ZZX * x * (4 * zz - xx - yy),
            _Y3_XXZ * z * (xx - yy),
            -_Y3_XXX * x * (xx - 3 * yy),
        ]
    return torch.stack(values, dim=-1)


def seen_colors(
    colors: Float[Tensor, "N 3"],
    harmonics: Float[Tensor, "N K 3"],
    means: Float[Tensor, "N 3"],
    centers: Float[Tensor, "C 3"],
) -> Float[Tensor, "C N 3"]:
    """Colours of Gaussians as cameras see them, not below 0.

    A direction is that of the moved Gaussian's centre in world axes; it does not turn with the Gaussian, so that where
    Gaussians move, what they reflect stays with the surroundings (as in Deformable-3DGS and 4DGaussians).

    Args:
        colors: RGB without what depends on the direction.
        harmonics: Coefficients above degree 0; K is 3, 8 or 15.
        means: Centres of the Gaussians, world units.
        centers: Positions of C cameras, world units.

    Raises:
        ValueError: No degree has that many harmonics.
    """
    directions = torch.nn.functional.normalize(means - centers[:, None], dim=-1)
    basis = harmonics_basis(directions, harmonics_degree(harmonics.shape[1]))
    return (colors + torch.einsum("cnk,nkj->cnj", basis, harmonics)).clamp_min(0)


def rotated_harmonics(harmonics: Float[Tensor, "N K 3"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "N K 3"]:
    """Coefficients of the same colours after everything was rotated: what d showed, `rotation` d shows.

    A rotation mixes the harmonics of each degree among themselves. The mixing matrix (Wigner's, for real harmonics)
    follows exactly from their values in more directions than there are harmonics.

    Args:
        harmonics: Above degree 0; K is 3, 8 or 15.
        rotation: Old directions to new ones.
    """
    degree, turn = harmonics_degree(harmonics.shape[1]), rotation.detach().double()
    sampled = _directions().to(turn.device)
    before, after = harmonics_basis(sampled @ turn, degree), harmonics_basis(sampled, degree)  # rotation^T d, and d
    parts = []
    for order in range(1, degree + 1):
        rows = slice(harmonics_count(order - 1), harmonics_count(order))
        mixing = torch.linalg.pinv(after[:, rows]) @ before[:, rows]
        parts.append(torch.einsum("ij,njc->nic", mixing.to(harmonics), harmonics[:, rows]))
    return torch.cat(parts, dim=1)


def _directions(count: int = 64) -> Float[Tensor, "{count} 3"]:
    """Directions that are spread evenly (a Fibonacci lattice), float64."""
    steps = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * steps / count, math.pi * (3 - math.sqrt(5)) * steps
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
