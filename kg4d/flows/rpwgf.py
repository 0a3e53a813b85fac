r"""The relaxed parametrized Wasserstein gradient flow, :math:`\dot\theta = -\hat G(\theta)^\dagger \nabla F(\theta)`.

The flow of an energy, projected on what a map can do, in the L2 metric of maps. One time step is one solve.

Source: Jin, Liu, Wu, Ye, Zhou, Parameterized Wasserstein gradient flow, J. Comput. Phys. 2025.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.energies import Energy, push, wasserstein_gradient
from kg4d.flows.laws import Law
from kg4d.flows.maps import PushForward
from kg4d.flows.metric import PullbackMetric
from kg4d.flows.settings import Solver, SolverConfig
from kg4d.flows.solvers import solve

_log = logging.getLogger(__name__)
_FAR = 4.0  # squared length of a step over what the metric foresaw: twice the length

Points = Callable[[int], Tensor]  # reference points of a step: always the same ones, or new ones


class FlowDivergedError(ArithmeticError):
    """An energy or its gradient stopped being a number."""


class Scheme(StrEnum):
    """How a time step is taken."""

    EULER = "euler"  # forward: one solve
    SEMI_IMPLICIT = "semi_implicit"  # the gradient at the new parameters, the metric at the old ones


@dataclass(frozen=True)
class Problem:
    """What flows: an energy of the law of a map.

    Attributes:
        energy: Goes down.
        push_forward: The map.
        base: Law of the reference points.
    """

    energy: Energy
    push_forward: PushForward
    base: Law

    def value(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
        """The energy at theta, by the reference points z; differentiable."""
        return self.energy.value(push(self.push_forward, self.base, theta, z, self.energy.needs_density))

    def gradient(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> tuple[float, Float[Tensor, " p"]]:
        """The energy and its gradient by theta.

        Raises:
            FlowDivergedError: One of them is not finite.
        """
        leaf = theta.detach().requires_grad_()
        value = self.value(leaf, z)
        (gradient,) = torch.autograd.grad(value, leaf)
        if not bool(torch.isfinite(value)) or not bool(torch.isfinite(gradient).all()):
            raise FlowDivergedError(
                f"the energy is {float(value.detach())} and its gradient {float(gradient.norm())}: take smaller steps, "
                "more damping, or a start whose density is positive"
            )
        return float(value.detach()), gradient

    def metric(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> PullbackMetric:
        """The L2 metric of the map at theta."""
        return PullbackMetric(lambda parameters: self.push_forward(parameters, z), theta)


class Step(NamedTuple):
    """A step that was taken. The energies before and after are by the same points, so their difference is no noise."""

    time: float  # after the step
    theta: Float[Tensor, " p"]  # after the step
    energy_before: float
    energy: float  # after the step
    dissipation: float  # -dF/dt that the metric predicts at the step's start, >= 0
    residual: float  # of the solve, relative
    iterations: int  # of the solve
    condition: float  # of the metric, as far as the solve saw it


def flow(
    problem: Problem,
    theta: Float[Tensor, " p"],
    points: Points,
    *,
    step: float,
    steps: int,
    solver: SolverConfig | None = None,
    scheme: Scheme = Scheme.EULER,
) -> Iterator[Step]:
    """Take `steps` steps of length `step` in time and yield each.

    Args:
        problem: What flows.
        theta: Parameters at time 0.
        points: Reference points of step k. The same ones each time make the flow one ODE; new ones each time do not let
            the map fit their noise.
        step: h > 0.
        steps: How many.
        solver: How the metric is inverted; MINRES, as the source has it, when None.
        scheme: How a step is taken.

    Raises:
        ValueError: `step` or `steps` is not positive; the metric is singular where `solver` does not allow for it.
        FlowDivergedError: The energy is not finite any more.
    """
    if step <= 0 or steps < 1:
        raise ValueError(f"need step > 0 and steps >= 1, got {step} and {steps}")
    config = SolverConfig(Solver.MINRES) if solver is None else solver
    theta = theta.detach()
    for k in range(steps):
        z = points(k)
        before, gradient = problem.gradient(theta, z)
        metric = problem.metric(theta, z)
        solution = solve(metric, gradient, config)
        dissipation = float(gradient @ solution.x)
        if scheme is Scheme.EULER:
            theta = theta - step * solution.x
        else:
            theta = _semi_implicit(problem, metric, theta, z, step, config.damping, -step * solution.x)
        with torch.no_grad():
            after = float(problem.value(theta, z))
        if not math.isfinite(after):
            raise FlowDivergedError(f"the energy is {after} at time {(k + 1) * step:g}: take smaller steps")
        yield Step(
            (k + 1) * step,
            theta,
            before,
            after,
            dissipation,
            solution.residual,
            solution.iterations,
            solution.condition,
        )


def _semi_implicit(
    problem: Problem,
    metric: PullbackMetric,
    theta: Float[Tensor, " p"],
    z: Float[Tensor, "B d"],
    step: float,
    damping: float,
    guess: Float[Tensor, " p"],
) -> Float[Tensor, " p"]:
    """The minimum over changes d of (d, (G + damping) d) / (2 step) + F(theta + d), whose gradient is the scheme.

    By L-BFGS from the better of no change and the forward step. The metric at theta knows the length of a change near
    theta alone: where it is nearly singular the minimum can lie far outside, which is said with a warning.
    """

    def objective(change: Tensor) -> tuple[Tensor, Tensor]:
        leaf = (theta + change).detach().requires_grad_()
        value = problem.value(leaf, z)
        (gradient,) = torch.autograd.grad(value, leaf)
        image = metric.product(change) + damping * change
        return value.detach() + change @ image / (2 * step), gradient + image / step

    zero = torch.zeros_like(guess)
    start = guess if float(objective(guess)[0]) < float(objective(zero)[0]) else zero  # a guess of nan loses
    change = start.clone().requires_grad_()
    search = torch.optim.LBFGS([change], max_iter=50, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        value, change.grad = objective(change.detach())
        return value

    search.step(closure)  # type: ignore[no-untyped-call]
    found = change.detach()
    with torch.no_grad():
        moved = float((metric.function(theta + found) - metric.outputs).square().sum(-1).mean())
    foreseen = float(found @ metric.product(found))
    if moved > _FAR * foreseen:
        _log.warning(
            "a semi-implicit step moved points %.1f times as far as the metric at its start says: take Scheme.EULER, "
            "smaller steps, or more damping than %g",
            math.sqrt(moved / max(foreseen, torch.finfo(theta.dtype).tiny)),
            damping,
        )
    return theta + found


def projection_error(problem: Problem, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"], cutoff: float) -> float:
    r"""What the map cannot follow: the :math:`\delta_0` of the source's error bound, at one theta.

    :math:`\min_\xi \int |\sum_i \xi_i \partial_i T(z) - \nabla \tfrac{\delta F}{\delta \rho}(T(z))|^2 d\lambda`, where
    the source takes the supremum over theta. Zero where the flow's velocity is one that the map can have.

    Args:
        problem: What flows.
        theta: Where.
        z: More points than parameters, or the fit is to noise.
        cutoff: Singular values of the map's derivative by theta below this, relative to the largest, count as zero.

    Returns:
        The mean squared error of the best fit; unit: velocity².
    """
    velocity = wasserstein_gradient(problem.energy, problem.push_forward, problem.base, theta, z).flatten()
    left, values, _ = torch.linalg.svd(problem.metric(theta, z).jacobian(), full_matrices=False)
    left = left[:, values > cutoff * values[0]]
    return float((velocity - left @ (left.mT @ velocity)).square().sum()) / len(z)
