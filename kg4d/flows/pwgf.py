r"""The parametrized Wasserstein gradient flow, in the metric of densities, by the bi-level scheme.

In that metric a change :math:`\delta = T_{\theta'} - T_\theta` costs only its gradient part, :math:`\nabla\psi`, the
nearest gradient field in :math:`L^2(\rho_\theta)`; a motion that leaves the density alone is free. One step is

.. math:: \theta' = \arg\min \Big\{ \max_\psi \int \big(2 \nabla\psi \cdot \delta \circ T_\theta^{-1}
    - |\nabla\psi|^2\big) \rho_\theta + 2 h F(\theta') \Big\},

with a network psi that goes on from step to step. On the moved points themselves :math:`T_\theta^{-1}` cancels.

Source: Liu, Li, Zha, Zhou, Neural parametric Fokker-Planck equations, SIAM J. Numer. Anal. 2022.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from kg4d.flows.networks import FlatModule
from kg4d.flows.rpwgf import FlowDivergedError, Points, Problem


@dataclass(frozen=True)
class BilevelConfig:
    """How each step's two nested problems are solved, both by Adam.

    Attributes:
        outer: Updates of theta a step.
        inner: Updates of psi before each of them.
        theta_rate: Learning rate of theta at a step's start; it falls to a tenth along a cosine.
        psi_rate: Learning rate of psi.
    """

    outer: int = 60
    inner: int = 4
    theta_rate: float = 5e-3
    psi_rate: float = 5e-3

    def __post_init__(self) -> None:
        if not (self.outer >= 1 and self.inner >= 1 and self.theta_rate > 0 and self.psi_rate > 0):
            raise ValueError(f"need at least one update and positive rates, got {self}")


class BilevelStep(NamedTuple):
    """A step that was taken."""

    time: float  # after the step
    theta: Float[Tensor, " p"]  # after the step
    energy_before: float
    energy: float  # after the step, by the same points
    gradient_part: float  # what psi explains of the mean squared change, in [0, 1] when psi has converged


class Psi:
    """A network psi of points, its parameters and what Adam remembers: warm from step to step.

    Args:
        network: (B, d) points to (B, 1).
        rate: Learning rate.
    """

    def __init__(self, network: FlatModule, rate: float) -> None:
        self.network = network
        self.parameters = network.initial().requires_grad_()
        self._adam = torch.optim.Adam([self.parameters], lr=rate)

    def gradient(self, x: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        """The gradient of psi by its points, differentiable by its parameters."""
        return vmap(grad(lambda point: self.network(self.parameters, point[None]).sum()))(x)  # type: ignore[no-any-return]

    def fit(self, x: Float[Tensor, "B d"], change: Float[Tensor, "B d"], updates: int) -> None:
        """Bring the gradient of psi at x nearer to `change`."""
        for _ in range(updates):
            self._adam.zero_grad()
            misfit = (self.gradient(x) - change).square().sum(-1).mean()
            self.parameters.grad = torch.autograd.grad(misfit, self.parameters)[0]
            self._adam.step()


def bilevel_flow(
    problem: Problem,
    theta: Float[Tensor, " p"],
    points: Points,
    potential: FlatModule,
    *,
    step: float,
    steps: int,
    config: BilevelConfig | None = None,
) -> Iterator[BilevelStep]:
    """Take `steps` steps of length `step` in time and yield each.

    Args:
        problem: What flows.
        theta: Parameters at time 0.
        points: Reference points of step k, many more than psi can tell apart: it could fit any change of a few.
        potential: psi, (B, d) to (B, 1): smooth, for its gradient is what counts (tanh, no ReLU).
        step: h > 0.
        steps: How many.
        config: Effort of each step.

    Raises:
        ValueError: `step` or `steps` is not positive.
        FlowDivergedError: The energy is not finite any more.
    """
    if step <= 0 or steps < 1:
        raise ValueError(f"need step > 0 and steps >= 1, got {step} and {steps}")
    config = config or BilevelConfig()
    psi = Psi(potential, config.psi_rate / step)  # changes are of the order of the step: psi learns change / step
    theta = theta.detach()
    for k in range(steps):
        z = points(k)
        before, _ = problem.gradient(theta, z)
        old = problem.push_forward(theta, z)
        theta = _step(problem, theta, z, old, psi, step, config)
        after, _ = problem.gradient(theta, z)
        change = (problem.push_forward(theta, z) - old) / step
        psi.fit(old, change, config.inner)
        pull = psi.gradient(old).detach()
        explained = 2 * pull * change - pull.square()
        part = float(explained.sum() / change.square().sum().clamp_min(torch.finfo(change.dtype).tiny))
        yield BilevelStep((k + 1) * step, theta, before, after, part)


def _step(
    problem: Problem,
    theta: Float[Tensor, " p"],
    z: Float[Tensor, "B d"],
    old: Float[Tensor, "B d"],
    psi: Psi,
    step: float,
    config: BilevelConfig,
) -> Float[Tensor, " p"]:
    """Alternate between psi and theta; with psi held, the metric's part is linear in the change."""
    new = theta.clone().requires_grad_()
    adam = torch.optim.Adam([new], lr=config.theta_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.outer, eta_min=config.theta_rate / 10)
    for _ in range(config.outer):
        change = problem.push_forward(new, z) - old
        psi.fit(old, change.detach() / step, config.inner)
        pull = psi.gradient(old).detach()
        objective = (pull * change).sum(-1).mean() + problem.value(new, z)  # half the objective, over the step
        adam.zero_grad()
        new.grad = torch.autograd.grad(objective, new)[0]
        if not bool(torch.isfinite(new.grad).all()):
            raise FlowDivergedError(
                "the energy or its gradient is not finite: take smaller steps or a lower theta_rate"
            )
        adam.step()
        schedule.step()
    return new.detach()
