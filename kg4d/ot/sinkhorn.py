"""Entropic optimal transport between small weighted sets, in the log domain.

Tensors in, tensors out: no Gaussian, camera or config is known here. The plain-domain iteration of KG4D underflows in
float32 once cost / epsilon passes about 100; in the log domain float32 is enough.
Sources: KG4D App. B, Alg. 1; log form: Peyré & Cuturi 2019, "Computational Optimal Transport", 4.4; unbalanced: Chizat
et al. 2018; rounding: Altschuler, Weed & Rigollet 2017, Alg. 2.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Transport(NamedTuple):
    """A transport plan. Slow convergence is a value to look at, not an exception."""

    plan: Float[Tensor, "*batch n m"]  # mass moved from i to j
    row_error: Float[Tensor, "*batch"]  # L1 distance between the row sums of the last iterate and `source`, in [0, 2]


def sinkhorn(
    cost: Float[Tensor, "*batch n m"],
    source: Float[Tensor, "*batch n"],
    target: Float[Tensor, "*batch m"],
    *,
    epsilon: float,
    iterations: int,
) -> Transport:
    r"""Minimise :math:`\sum_{ij} P_{ij} C_{ij} + \epsilon \sum_{ij} P_{ij} (\log P_{ij} - 1)` over couplings P.

    Args:
        cost: Price of moving unit mass from i to j. Unit: px² when it comes from `gaussian_w2`.
        source: Weights >= 0 that sum to 1 over n. A zero is padding: its row of the plan is zero.
        target: Weights >= 0 that sum to 1 over m. A zero is padding: its column of the plan is zero.
        epsilon: Entropy strength, > 0, in the unit of `cost`, so it must grow with the image area.
        iterations: Row-and-column updates, >= 1. All of them run: no early exit, hence no wait for a GPU.

    Returns:
        The plan, whose columns sum to `target`, and its row error; both differentiable by unrolling the loop.

    Raises:
        ValueError: `epsilon` is not positive or `iterations` is below 1.

    >>> cost, half = 1 - torch.eye(2), torch.full((2,), 0.5)
    >>> sinkhorn(cost, half, half, epsilon=0.05, iterations=50).plan.round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    _check(epsilon, iterations)
    log_kernel, log_source, log_target = -cost / epsilon, _log(source), _log(target)
    log_v = torch.zeros_like(log_target)
    log_u, log_v = _iterate(log_kernel, log_source, log_target, log_v, iterations)
    plan = (log_u[..., :, None] + log_kernel + log_v[..., None, :]).exp()
    return Transport(plan, (plan.sum(-1) - source).abs().sum(-1))


def sinkhorn_unbalanced(
    cost: Float[Tensor, "*batch n m"],
    source: Float[Tensor, "*batch n"],
    target: Float[Tensor, "*batch m"],
    *,
    epsilon: float,
    relaxation: float,
    iterations: int,
) -> Transport:
    r"""Transport that may create and destroy mass, for contributors that appear and disappear (occlusion).

    Minimises :math:`\langle P, C \rangle + \epsilon KL(P | a b^T) + \rho KL(P 1 | a) + \rho KL(P^T 1 | b)`.

    Args:
        cost: As in `sinkhorn`.
        source: As in `sinkhorn`.
        target: As in `sinkhorn`.
        epsilon: Entropy strength, > 0, in the unit of `cost`.
        relaxation: Price rho of missing or surplus mass, > 0, in the unit of `cost`; infinity is the balanced problem.
        iterations: Row-and-column updates, >= 1.

    Returns:
        The plan, whose total is the mass that was worth moving. Most of its `row_error` is mass destroyed on purpose.

    Raises:
        ValueError: `epsilon` or `relaxation` is not positive or `iterations` is below 1.
    """
    _check(epsilon, iterations)
    if relaxation <= 0:
        raise ValueError(f"need relaxation > 0, got {relaxation}")
    damping = 1 / (1 + epsilon / relaxation)
    log_source, log_target = _log(source), _log(target)
    log_kernel = -cost / epsilon + log_source[..., :, None] + log_target[..., None, :]
    log_v = torch.zeros_like(log_target)
    log_u, log_v = _iterate(log_kernel, log_source, log_target, log_v, iterations, damping)
    plan = (log_u[..., :, None] + log_kernel + log_v[..., None, :]).exp()
    return Transport(plan, (plan.sum(-1) - source).abs().sum(-1))


@torch.no_grad()
def sinkhorn_rounded(
    cost: Float[Tensor, "*batch n m"],
    source: Float[Tensor, "*batch n"],
    target: Float[Tensor, "*batch m"],
    *,
    epsilon_relative: float = 0.05,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    check_every: int = 10,
) -> Transport:
    """A coupling with exact marginals, without gradient: iterate until the rows fit, then round.

    With the plan held fixed, the gradient of <plan, cost> is that of the entropic problem (envelope theorem). Gradients
    through the plan let covariances run away when the cost depends on them; `sinkhorn` provides them all the same.

    Args:
        cost: As in `sinkhorn`, any unit: it is divided by its mean under the product of the weights, per problem.
        source: As in `sinkhorn`.
        target: As in `sinkhorn`.
        epsilon_relative: Entropy strength in units of that mean cost.
        max_iterations: Stop after so many updates at the latest; `row_error` shows how far they came.
        tolerance: Stop when the row error of every problem is at most this.
        check_every: Updates between two looks at the row error; each look waits for the GPU.

    Returns:
        The rounded plan, and the row error that was left before rounding, which is the mass that rounding moved.

    Raises:
        ValueError: `epsilon_relative` is not positive, or `max_iterations` or `check_every` is below 1.
    """
    _check(epsilon_relative, min(max_iterations, check_every))
    tiny = torch.finfo(cost.dtype).tiny
    scale = (cost * source[..., :, None] * target[..., None, :]).sum((-2, -1), keepdim=True).clamp_min(tiny)
    log_kernel, log_source, log_target = -cost / (scale * epsilon_relative), _log(source), _log(target)
    log_v, done = torch.zeros_like(log_target), 0
    while True:
        count = min(check_every, max_iterations - done)
        log_u, log_v = _iterate(log_kernel, log_source, log_target, log_v, count)
        plan = (log_u[..., :, None] + log_kernel + log_v[..., None, :]).exp()
        row_error, done = (plan.sum(-1) - source).abs().sum(-1), done + count
        if done >= max_iterations or (row_error <= tolerance).all():
            return Transport(round_to_coupling(plan, source, target), row_error)


def round_to_coupling(
    plan: Float[Tensor, "*batch n m"], source: Float[Tensor, "*batch n"], target: Float[Tensor, "*batch m"]
) -> Float[Tensor, "*batch n m"]:
    """A coupling near `plan` with exactly these marginals: scale down what is too much, then spread what is missing.

    Source: Altschuler, Weed & Rigollet 2017, Alg. 2.
    """
    tiny = torch.finfo(plan.dtype).tiny
    plan = plan * (source / plan.sum(-1).clamp_min(tiny)).clamp(max=1)[..., :, None]
    plan = plan * (target / plan.sum(-2).clamp_min(tiny)).clamp(max=1)[..., None, :]
    rows, columns = (source - plan.sum(-1)).clamp_min(0), (target - plan.sum(-2)).clamp_min(0)
    return plan + rows[..., :, None] * columns[..., None, :] / rows.sum(-1).clamp_min(tiny)[..., None, None]


def _check(epsilon: float, iterations: int) -> None:
    if epsilon <= 0 or iterations < 1:
        raise ValueError(f"need epsilon > 0 and iterations >= 1, got {epsilon} and {iterations}")


def _log(weights: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Logarithm with a finite floor: padding gives (almost) zero mass, never inf - inf."""
    return weights.clamp_min(torch.finfo(weights.dtype).tiny).log()


def _iterate(
    log_kernel: Float[Tensor, "*batch n m"],
    log_source: Float[Tensor, "*batch n"],
    log_target: Float[Tensor, "*batch m"],
    log_v: Float[Tensor, "*batch m"],
    iterations: int,
    damping: float = 1.0,
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]]:
    """Alg. 1, lines 4 and 5, `iterations` times; `damping` below 1 relaxes both marginals."""
    log_u = torch.zeros_like(log_source)
    for _ in range(iterations):
        log_u = damping * (log_source - torch.logsumexp(log_kernel + log_v[..., None, :], dim=-1))
        log_v = damping * (log_target - torch.logsumexp(log_kernel + log_u[..., :, None], dim=-2))
    return log_u, log_v
