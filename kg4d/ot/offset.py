"""The motion of a pixel's mixture (KG4D eq. 10).

The offset H = sum_kk' P_kk' (mu'_k' - mu_k) depends on the plan through its marginals alone:
sum_k' mu'_k' (sum_k P_kk') - sum_k mu_k (sum_k' P_kk') = sum_k' b_k' mu'_k' - sum_k a_k mu_k.
So no cost, entropy or solver shows in it, the gradient on a centre is its weight times one vector common to all, and
turning, scaling or collapsing the set about its mean leaves it as it is: H sees translation only.
"""

from jaxtyping import Float
from torch import Tensor


def wasserstein_offset(
    plan: Float[Tensor, "*batch n m"],
    means: Float[Tensor, "*batch n 2"],
    means_next: Float[Tensor, "*batch m 2"],
) -> Float[Tensor, "*batch 2"]:
    """H as KG4D eq. 10 writes it, in the unit of the means; for a plan whose mass is 1."""
    steps = means_next[..., None, :, :] - means[..., :, None, :]
    return (plan[..., None] * steps).sum((-3, -2))


def wasserstein_offset_closed(
    weights: Float[Tensor, "*batch n"],
    means: Float[Tensor, "*batch n 2"],
    weights_next: Float[Tensor, "*batch m"],
    means_next: Float[Tensor, "*batch m 2"],
) -> Float[Tensor, "*batch 2"]:
    """The same H for every plan with these marginals: the difference of the two weighted means."""
    return _mean(weights_next, means_next) - _mean(weights, means)


def _mean(weights: Float[Tensor, "*batch n"], means: Float[Tensor, "*batch n 2"]) -> Float[Tensor, "*batch 2"]:
    return (weights[..., None] * means).sum(-2)
