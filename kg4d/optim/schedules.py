"""Learning-rate schedules, as plain functions of the progress of a stage."""

import math
from collections.abc import Mapping

from torch.optim import Optimizer


def exponential(progress: float, final_factor: float) -> float:
    """From 1 to `final_factor`, by the same ratio at each step."""
    return float(final_factor**progress)


def warm_cosine(progress: float, step: int, warmup_steps: int, final_factor: float) -> float:
    """Linear warm-up over `warmup_steps`, times a half cosine from 1 to `final_factor`.

    Args:
        progress: Share of the steps that are done, in [0, 1].
        step: Of the stage, from 0.
        warmup_steps: 0 for none.
        final_factor: At the end.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    return warmup * (final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rates(optimizer: Optimizer, factors: Mapping[str, float] | float) -> None:
    """Set the rate of each group to its initial rate times its factor.

    Args:
        optimizer: From `kg4d.optim.build.build_optimizer`.
        factors: One for all groups, or one for each by name.
    """
    for group in optimizer.param_groups:
        factor = factors if isinstance(factors, float) else factors[group["name"]]
        group["lr"] = group["initial_lr"] * factor
