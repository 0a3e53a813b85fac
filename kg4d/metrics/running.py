"""The state that every averaged metric shares: a sum and a count that add up over batches and processes."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric


class RunningMean(Metric):
    """Mean of the finite values given to `add`. A subclass writes `update` and nothing else.

    Values are summed in float64, so that the order of batches and the number of processes do not matter in practice.
    NaN means "nothing to measure here" (an empty mask, no visible keypoint) and does not count.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, values: Float[Tensor, " B"]) -> None:
        """Add values, leaving NaN out."""
        known = values[~values.isnan()].detach().double()
        self.total += known.sum()
        self.count += known.numel()

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far; NaN when nothing was added."""
        return self.total / self.count
