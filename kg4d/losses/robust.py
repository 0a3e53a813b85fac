"""Errors that stop pulling where they are large."""

from jaxtyping import Float
from torch import Tensor


def geman_mcclure(squared: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
    """s² e² / (s² + e²) of squared errors: e² where small, s² at most, so that an outlier soon stops pulling."""
    return squared / (1 + squared / scale**2)
