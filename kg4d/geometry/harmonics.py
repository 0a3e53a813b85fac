"""Spherical harmonics of degree 0, which 3DGS files use to store a view-independent colour."""

import math

from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic Y_00


def rgb_to_sh0(rgb: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Degree-0 coefficients c of colours in [0, 1], by the convention of 3DGS files: colour = 0.5 + Y_00 c."""
    return (rgb - 0.5) / SH_C0
