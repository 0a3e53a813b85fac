"""Error of drawn depth against the true one, without any alignment: cameras are known, and with them the scale.

Source of both measures: Eigen et al. 2014, "Depth map prediction from a single image using a multi-scale deep network".
"""

from jaxtyping import Float
from torch import Tensor

from kg4d.metrics.state import PooledMean

_RATIO = 1.25


def relative_errors(
    pred: Float[Tensor, "*batch H W"], target: Float[Tensor, "*batch H W"], weights: Float[Tensor, "*batch H W"]
) -> Float[Tensor, " n"]:
    """|pred - target| / target of every pixel with a positive weight.

    Args:
        pred: Drawn depth; 0 where nothing is drawn, which is an error of 1.
        target: True depth in the same unit, > 0 where the weight is positive.
        weights: > 0 where the truth is known.
    """
    counts = weights > 0
    return (pred[counts] - target[counts]).abs() / target[counts]


def within_ratio(
    pred: Float[Tensor, "*batch H W"], target: Float[Tensor, "*batch H W"], weights: Float[Tensor, "*batch H W"]
) -> Float[Tensor, " n"]:
    """1 where neither depth is 1.25 times the other or more, else 0; arguments as in `relative_errors`."""
    counts = weights > 0
    drawn, true = pred[counts], target[counts]
    return ((drawn < _RATIO * true) & (true < _RATIO * drawn)).to(pred.dtype)


class AbsRel(PooledMean):
    """Mean of `relative_errors` over the pixels of all images."""

    higher_is_better = False

    def update(
        self,
        pred: Float[Tensor, "*batch H W"],
        target: Float[Tensor, "*batch H W"],
        weights: Float[Tensor, "*batch H W"],
    ) -> None:
        """Add images."""
        self.add(relative_errors(pred, target, weights))


class WithinRatio(PooledMean):
    """Mean of `within_ratio` over the pixels of all images."""

    higher_is_better = True

    def update(
        self,
        pred: Float[Tensor, "*batch H W"],
        target: Float[Tensor, "*batch H W"],
        weights: Float[Tensor, "*batch H W"],
    ) -> None:
        """Add images."""
        self.add(within_ratio(pred, target, weights))
