"""Which transport plan pairs two mixtures: entropic, exact, or one that may leave mass behind."""

from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.ot.settings import PlanConfig, PlanSolver
from kg4d.ot.sinkhorn import sinkhorn_rounded, sinkhorn_unbalanced


@torch.no_grad()
def transport_plan(
    cost: Float[Tensor, "*P n m"], source: Float[Tensor, "*P n"], target: Float[Tensor, "*P m"], config: PlanConfig
) -> Float[Tensor, "*P n m"]:
    """The transport plan of each of P problems; no gradient flows.

    Args:
        cost: Price of moving unit mass from i to j, any unit.
        source: Weights >= 0 that sum to 1 over n, or to 0 for a problem to be skipped, whose plan is zero.
        target: Weights >= 0 that sum to 1 over m, or to 0 likewise.
        config: Solver and its settings.

    Raises:
        ValueError: `epsilon` or `relaxation` is not positive, or `iterations` is below 1.
        ImportError: POT is wanted and missing.
    """
    present = ((source.sum(-1) > 0) & (target.sum(-1) > 0))[..., None, None]
    match config.solver:
        case PlanSolver.SINKHORN:
            found = sinkhorn_rounded(
                cost, source, target, epsilon_relative=config.epsilon, max_iterations=config.iterations
            ).plan
        case PlanSolver.EXACT:
            found = _linear_programs(cost, source, target)
        case PlanSolver.UNBALANCED:
            found = _unbalanced(cost, source, target, config)
        case _:
            assert_never(config.solver)
    return found.where(present, 0.0)


def _unbalanced(
    cost: Float[Tensor, "*P n m"], source: Float[Tensor, "*P n"], target: Float[Tensor, "*P m"], config: PlanConfig
) -> Float[Tensor, "*P n m"]:
    tiny = torch.finfo(cost.dtype).tiny
    mean = (cost * source[..., :, None] * target[..., None, :]).sum((-2, -1), keepdim=True).clamp_min(tiny)
    plan = sinkhorn_unbalanced(
        cost / mean,
        source,
        target,
        epsilon=config.epsilon,
        relaxation=config.relaxation,
        iterations=config.iterations,
    ).plan
    return plan / plan.sum((-2, -1), keepdim=True).clamp_min(tiny)


def _linear_programs(
    cost: Float[Tensor, "*P n m"], source: Float[Tensor, "*P n"], target: Float[Tensor, "*P m"]
) -> Float[Tensor, "*P n m"]:
    try:
        import ot
    except ImportError as error:
        raise ImportError('the exact transport plan needs POT: pip install "kg4d[exact]"') from error
    plans = torch.zeros_like(cost)
    flat = plans.flatten(0, -3), source.flatten(0, -2), target.flatten(0, -2), cost.flatten(0, -3)
    for plan, *problem in zip(*flat, strict=True):
        a, b, costs = (values.double().cpu() for values in problem)
        if a.sum() > 0 and b.sum() > 0:
            found = ot.emd((a / a.sum()).numpy(), (b / b.sum()).numpy(), costs.numpy())
            plan.copy_(torch.from_numpy(found))
    return plans
