"""Spherical harmonics of degree 0: how 3DGS files store a plain colour."""

import math

from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic Y_00


def rgb_to_sh0(rgb: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Coefficients of degree 0 of colours; 3DGS files hold colour = 0.5 + Y_00 coefficient."""
    return (rgb - 0.5) / SH_C0
