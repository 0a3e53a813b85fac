"""The motion of a pixel's mixture (KG4D eq. 10).

The offset H = sum_kk' P_kk' (mu'_k' - mu_k) depends on the plan only through its marginals:
sum_k' mu'_k' (sum_k P_kk') - sum_k mu_k (sum_k' P_kk') = sum_k' b_k' mu'_k' - sum_k a_k mu_k.
So neither cost nor entropy nor solver matters, the gradient on a centre is its weight times one vector common to all,
and rotating, scaling or collapsing the set about its mean does not change H: it sees translation only.
"""

from jaxtyping import Float
from torch import Tensor


def wasserstein_offset(
    plan: Float[Tensor, "*batch n m"],
    means: Float[Tensor, "*batch n 2"],
    means_next: Float[Tensor, "*batch m 2"],
) -> Float[Tensor, "*batch 2"]:
    """The offset H as KG4D eq. 10 writes it, for a plan of total mass 1; in the unit of the means."""
    steps = means_next[..., None, :, :] - means[..., :, None, :]
    return (plan[..., None] * steps).sum((-3, -2))


def wasserstein_offset_closed(
    weights: Float[Tensor, "*batch n"],
    means: Float[Tensor, "*batch n 2"],
    weights_next: Float[Tensor, "*batch m"],
    means_next: Float[Tensor, "*batch m 2"],
) -> Float[Tensor, "*batch 2"]:
    """The offset H that every plan with these marginals has: the difference of the two weighted means (KG4D eq. 10).

    Args:
        weights: Weights a_k at the earlier time; they sum to 1.
        means: Centres mu_k at the earlier time, px.
        weights_next: Weights b_k at the later time; they sum to 1.
        means_next: Centres mu'_k at the later time, px.
    """
    return _mean(weights_next, means_next) - _mean(weights, means)


def _mean(weights: Float[Tensor, "*batch n"], means: Float[Tensor, "*batch n 2"]) -> Float[Tensor, "*batch 2"]:
    return (weights[..., None] * means).sum(-2)
