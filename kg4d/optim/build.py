"""The one place that makes an optimiser."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, assert_never

import torch
from torch import nn
from torch.optim import Optimizer


class OptimizerKind(StrEnum):
    """Which optimiser takes the steps."""

    ADAM = "adam"


@dataclass
class OptimizerConfig:
    """The optimiser of the stages.

    Attributes:
        kind: Which one.
        eps: What Adam adds to the root of the second moment. Gaussians need it tiny: their gradients are.
    """

    kind: OptimizerKind = OptimizerKind.ADAM
    eps: float = 1e-15


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate."""

    name: str  # in logs and schedules
    parameters: Sequence[nn.Parameter]
    learning_rate: float  # at the start of the schedule


def build_optimizer(config: OptimizerConfig, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Make the optimiser that `config` names, with one of its groups for each group that holds a parameter.

    Each group keeps its `name`, and the given learning rate as `initial_lr`, from which schedules start.
    """
    settings = [
        {"params": list(group.parameters), "lr": group.learning_rate, "name": group.name}
        for group in groups
        if group.parameters
    ]
    if not settings:  # nothing moves: an optimiser wants a parameter all the same
        settings.append({"params": [nn.Parameter(torch.empty(0))], "lr": 0.0, "name": "nothing"})
    for group in settings:
        group["initial_lr"] = group["lr"]
    match config.kind:
        case OptimizerKind.ADAM:
            on_gpu = all(parameter.is_cuda for group in groups for parameter in group.parameters)
            fused = True if on_gpu and any(group.parameters for group in groups) else None
            return torch.optim.Adam(settings, eps=config.eps, fused=fused)  # on a GPU one kernel for all parameters
        case _:
            assert_never(config.kind)
