r"""The L2 metric of a map by its parameters, and its products with vectors, never as a matrix of parameters.

For outputs :math:`T_\theta(z_b)` the metric is :math:`\hat G = \sum_b w_b J_b^T J_b`, :math:`J_b = \partial_\theta
T_\theta(z_b)`, weights :math:`w_b` that sum to 1. It is the Gauss-Newton matrix of a least-squares fit of the outputs.

Source: Jin, Liu, Wu, Ye, Zhou, Parameterized Wasserstein gradient flow, J. Comput. Phys. 2025.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp, vmap


class PullbackMetric:
    """The metric of one function at one vector of parameters. Nothing here is differentiable again.

    Args:
        function: theta (p,) to outputs (B, d).
        theta: Where the metric is taken.
        weights: Of the B outputs, >= 0; equal when None.

    >>> metric = PullbackMetric(lambda theta: torch.stack([theta, 2 * theta]), torch.zeros(3))
    >>> metric.product(torch.tensor([1.0, 0.0, 0.0]))  # (1² + 2²) / 2
    tensor([2.5000, 0.0000, 0.0000])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        theta: Float[Tensor, " p"],
        weights: Float[Tensor, " B"] | None = None,
    ) -> None:
        self.function, self.theta = function, theta.detach()
        self.outputs, self._pull = vjp(function, self.theta)  # type: ignore[misc]  # three with has_aux
        count = len(self.outputs)
        self.weights = self.outputs.new_full((count,), 1 / count) if weights is None else weights

    def push(self, v: Float[Tensor, " p"]) -> Float[Tensor, "B d"]:
        """J v: how the outputs change when the parameters move along v."""
        moved: Tensor = jvp(self.function, (self.theta,), (v,))[1]
        return moved

    def pull(self, u: Float[Tensor, "B d"]) -> Float[Tensor, " p"]:
        """The weighted sum of the transposed J with u: the gradient of parameters when that of each output is u."""
        (pulled,) = self._pull(self.weights[:, None] * u)
        return pulled  # type: ignore[no-any-return]

    def product(self, v: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        """The metric times v."""
        return self.pull(self.push(v))

    def jacobian(self, chunk: int | None = None) -> Float[Tensor, "rows p"]:
        """All of J, for batches so small that it fits: row b d + i is the gradient of coordinate i of output b.

        Args:
            chunk: Rows that are found at once; all when None.
        """
        units = torch.eye(self.outputs.numel(), dtype=self.outputs.dtype, device=self.outputs.device)
        rows: Tensor = vmap(lambda row: self._pull(row.view_as(self.outputs))[0], chunk_size=chunk)(units)
        return rows

    def diagonal(self, probes: int, generator: torch.Generator) -> Float[Tensor, " p"]:
        """An estimate >= 0 of the diagonal, for a preconditioner: the mean over random signs of the squared pull.

        Unbiased for any number of probes; its relative deviation falls as sqrt(2 / probes).
        """
        total = torch.zeros_like(self.theta)
        root = self.weights.sqrt()[:, None]
        for _ in range(probes):
            signs = 2 * torch.randint(2, self.outputs.shape, generator=generator).to(self.outputs) - 1
            (pulled,) = self._pull(root * signs)
            total += pulled.square()
        return total / probes
