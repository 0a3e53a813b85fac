"""Named loss terms with scheduled weights: where the total is formed and each term is remembered for the logs."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Objective:
    """The weighted sum of one step.

    Attributes:
        progress: Share of the stage that is done, in [0, 1].
        terms: Detached unweighted values by name.
        total: The sum so far, or None.
    """

    progress: float
    terms: dict[str, Tensor] = field(default_factory=dict)
    total: Tensor | None = None

    def add(self, name: str, value: Tensor, weight: float, warmup: float = 0.0) -> None:
        """Add `weight * value`; the weight grows linearly from 0 over the first `warmup` share of the stage."""
        scale = weight * min(1.0, self.progress / warmup) if warmup > 0 else weight
        self.terms[name] = value.detach()
        if value.requires_grad and scale != 0:
            self.total = value * scale if self.total is None else self.total + value * scale


def check_finite(total: Tensor, terms: dict[str, Tensor], step: int) -> None:
    """Stop a run that has diverged, naming the terms that did.

    Raises:
        FloatingPointError: The total is NaN or infinite.
    """
    if not math.isfinite(float(total.detach())):
        bad = [name for name, value in terms.items() if not torch.isfinite(value).all()]
        raise FloatingPointError(f"the loss is not finite at step {step} (terms: {', '.join(bad) or 'only their sum'})")
