"""Named loss terms with scheduled weights: where the total is formed and each term is remembered for the logs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Residual(NamedTuple):
    """One term of an objective."""

    value: Tensor  # scalar, with its history
    weight: float  # at this step


@dataclass
class Objective:
    """The weighted sum of one step.

    Attributes:
        progress: Share of the stage that is done, in [0, 1].
        share: What a mean over the images of this process weighs in the mean over the processes; 1 with a single one.
        terms: Detached unweighted values by name, for the logs.
        residuals: The terms that have a gradient and a weight, by name: what an optimiser needs that treats them apart.
    """

    progress: float
    share: float = 1.0
    terms: dict[str, Tensor] = field(default_factory=dict)
    residuals: dict[str, Residual] = field(default_factory=dict)

    def add(self, name: str, value: Tensor, weight: float, warmup: float = 0.0, *, shared_out: bool = False) -> None:
        """Add `weight * value`; the weight grows linearly from 0 over the first `warmup` share of the stage.

        Args:
            name: Of the term.
            value: Scalar.
            weight: Of the term.
            warmup: Share of the stage.
            shared_out: It is a `weighted_mean` over what all processes hold, and not a mean over the images here.

        Raises:
            ValueError: There is a term of that name already.
        """
        if name in self.terms:
            raise ValueError(f"the objective has a term {name!r} already")
        scale = weight * min(1.0, self.progress / warmup) if warmup > 0 else weight
        share = 1.0 if shared_out else self.share
        self.terms[name] = value.detach() if share == 1 else value.detach() * share
        scale *= share
        if value.requires_grad and scale != 0:
            self.residuals[name] = Residual(value, scale)

    @property
    def total(self) -> Tensor | None:
        """The weighted sum, in the order in which the terms were added; None where no term has a gradient."""
        total: Tensor | None = None
        for value, weight in self.residuals.values():
            total = value * weight if total is None else total + value * weight
        return total


def check_finite(total: Tensor, terms: dict[str, Tensor], parameters: Iterable[tuple[str, Tensor]], step: int) -> None:
    """Stop a run that has diverged, before its parameters take up a gradient; a finite loss may well have a bad one.

    NaN and infinity survive a sum, so one number shows them all, and a GPU is waited for once. Each value is looked at
    only then.

    Args:
        total: The loss.
        terms: What it is made of, by name.
        parameters: With their names, after the backward pass.
        step: Of the stage.

    Raises:
        FloatingPointError: The total is NaN or infinite, or a gradient holds such a value.
    """
    gradients = {name: parameter.grad for name, parameter in parameters if parameter.grad is not None}
    sums = [gradient.sum() for gradient in gradients.values()]
    if math.isfinite(float(torch.stack([total.detach(), *sums]).sum())):
        return
    if not math.isfinite(float(total.detach())):
        bad = [name for name, value in terms.items() if not torch.isfinite(value).all()]
        raise FloatingPointError(f"the loss is not finite at step {step} (terms: {', '.join(bad) or 'only their sum'})")
    bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if bad:  # else the values are finite and their sum is too large for float32
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise FloatingPointError(f"the gradient is not finite at step {step} (of {', '.join(bad[:4])}{more})")
