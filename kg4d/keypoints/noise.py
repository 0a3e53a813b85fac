"""How noisy positions in an image are."""

import math

from jaxtyping import Float
from torch import Tensor

_MEDIAN = math.sqrt(2 * math.log(2))  # of the length of two normal errors of deviation 1


def deviation(distances: Float[Tensor, " N"]) -> float:
    """Deviation of one coordinate of normal errors in the plane, from the median of their lengths; 0 without any.

    A median, so that a share of wrong positions adds little, however far off they are.
    """
    return float(distances.median() / _MEDIAN) if len(distances) else 0.0
