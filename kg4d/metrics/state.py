"""What the metric classes keep between updates, so that batches and processes add up to one number.

A metric is a pure function, and beside it a `torchmetrics.Metric` that only says in `update` what is added.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class SampleMean(Metric):
    """Mean over samples: images, clips, steps of a video. Keeps one value a sample, so that each can be looked at.

    NaN means "nothing to measure here" (an empty mask, say) and does not count.
    """

    is_differentiable = False
    full_state_update = False
    values: list[Tensor] | Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")

    def add(self, values: Float[Tensor, " n"]) -> None:
        """Keep the values of some samples; for `update`."""
        assert isinstance(self.values, list)  # a tensor only inside `compute`, after reduction over processes
        self.values.append(values.detach())

    def per_sample(self) -> Float[Tensor, " N"]:
        """The values so far, in the order of the updates."""
        joined: Tensor = dim_zero_cat(self.values)
        return joined

    def compute(self) -> Float[Tensor, ""]:
        """Their mean; NaN where no sample counts."""
        return self.per_sample().nanmean()


class PooledMean(Metric):
    """Mean over parts of samples: pixels, keypoints. Keeps their sum and their number.

    NaN means "does not count".
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, values: Float[Tensor, " n"]) -> None:
        """Count some values in; for `update`."""
        known = values[~values.isnan()].detach()
        self.total = self.total + known.sum()
        self.count = self.count + known.numel()

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far; NaN when nothing counted."""
        return self.total / self.count


def measured(metric: Metric, *inputs: Tensor) -> Float[Tensor, ""]:
    """Result of a new metric for one update, in this process alone."""
    metric.sync_on_compute = False
    metric.update(*inputs)
    result: Tensor = metric.compute()
    return result
