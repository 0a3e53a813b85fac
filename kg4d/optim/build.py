"""The one place that makes an optimiser."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, assert_never

import torch
from torch import nn
from torch.optim import Optimizer

from kg4d.optim.natural_gradient import Motion, NaturalGradient
from kg4d.optim.settings import OptimizerConfig, OptimizerKind


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate."""

    name: str  # in logs and schedules
    parameters: Sequence[nn.Parameter]
    learning_rate: float  # at the start of the schedule


def build_optimizer(
    config: OptimizerConfig, groups: Sequence[ParameterGroup], motion: Motion | None = None
) -> Optimizer:
    """Make the optimiser that `config` names, with one of its groups for each group that holds a parameter.

    Each group keeps its `name`, and the given learning rate as `initial_lr`, from which schedules start.

    Args:
        config: Which one.
        groups: What is fitted.
        motion: Those of them that move Gaussians, for `kind: rpwgf`, which gathers them in a group of their own. None
            leaves all to Adam.
    """
    match config.kind:
        case OptimizerKind.ADAM:
            return _adam(groups, config.eps)
        case OptimizerKind.RPWGF if motion is None or not motion.parameters:  # nothing moves
            return _adam(groups, config.eps)
        case OptimizerKind.RPWGF:
            rest = _settings(groups, apart={id(parameter) for parameter in motion.parameters})
            return NaturalGradient(rest, motion, config.rpwgf, config.eps)
        case _:
            assert_never(config.kind)


def _adam(groups: Sequence[ParameterGroup], eps: float) -> Optimizer:
    """Adam; on a GPU one kernel for all parameters."""
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group.parameters)
    fused = True if on_gpu and any(group.parameters for group in groups) else None
    return torch.optim.Adam(_settings(groups), eps=eps, fused=fused)


def _settings(groups: Sequence[ParameterGroup], apart: Collection[int] = ()) -> list[dict[str, Any]]:
    """Groups as torch wants them, without the parameters whose identities are `apart`."""
    settings = []
    for name, parameters, rate in groups:
        kept = [parameter for parameter in parameters if id(parameter) not in apart]
        if kept:
            settings.append({"params": kept, "lr": rate, "initial_lr": rate, "name": name})
    if not settings:  # nothing moves: an optimiser wants a parameter all the same
        settings.append({"params": [nn.Parameter(torch.empty(0))], "lr": 0.0, "initial_lr": 0.0, "name": "nothing"})
    return settings
