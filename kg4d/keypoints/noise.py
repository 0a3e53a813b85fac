"""How noisy positions in an image are."""

import math

from jaxtyping import Float
from torch import Tensor

_MEDIAN = math.sqrt(2 * math.log(2))  # of the length of two normal errors of deviation 1


def deviation(distances: Float[Tensor, " N"], weights: Float[Tensor, " N"]) -> float:
    """Deviation of one coordinate of normal errors in the plane, from the median of their lengths; 0 without any.

    A median, so that a share of wrong positions adds little, however far off they are; weighted, so that positions
    which are hardly believed say little about the others.

    Args:
        distances: Lengths of the errors.
        weights: Confidence >= 0; what has none is not counted.
    """
    distances, order = distances[weights > 0].sort()
    if len(distances) == 0:
        return 0.0
    reached = weights[weights > 0][order].double().cumsum(0)
    return float(distances[reached >= reached[-1] / 2][0] / _MEDIAN)
