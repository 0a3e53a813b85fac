r"""Natural gradient for what moves points, and Adam for everything else.

Steepest descent in parameters takes a step of some length in theta, which may move the points by much or by nothing.
Here the length of a step is how far it moves them: :math:`\theta \leftarrow \theta - h (\hat G + \mu)^{-1} \nabla L`,
with the metric :math:`\hat G = \frac1B \sum_b J_b^T J_b` of the map from theta to B points.

Source: Jin, Liu, Wu, Ye, Zhou, Parameterized Wasserstein gradient flow, J. Comput. Phys. 2025 (its relaxed flow).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.errors import InputError
from kg4d.flows.metric import PullbackMetric
from kg4d.flows.solvers import solve
from kg4d.optim.settings import RpwgfConfig

Points = Callable[[Tensor], Tensor]  # theta (p,) to the moved points (B, d), world units


class Motion(NamedTuple):
    """A map whose parameters are fitted."""

    parameters: Sequence[nn.Parameter]  # theta is these, flattened, in this order
    points: Callable[[int], Points]  # those by which step k is measured, a pure function of k


class NaturalGradient(torch.optim.Adam):
    """Adam whose group `motion` takes natural gradient steps instead.

    All that a resumed run needs is in `state_dict`, as with Adam: that group counts its own steps.

    Args:
        groups: Of Adam.
        motion: What `config` is for.
        config: How its steps are taken; the group's learning rate is h.
        eps: Of Adam.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], motion: Motion, config: RpwgfConfig, eps: float = 1e-15
    ) -> None:
        natural = {
            "params": list(motion.parameters),
            "lr": config.step,
            "initial_lr": config.step,
            "name": "motion",
            "taken": 0,
        }
        super().__init__([*groups, natural], eps=eps)
        self.config = config
        self._points = motion.points

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of both kinds.

        Raises:
            InputError: The metric is singular and there is no damping, or the map has no forward derivative.
            FloatingPointError: The map gives values that are not finite.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._natural_step(self.param_groups[-1])
        super().step()  # passes over parameters without a gradient
        return loss

    def _natural_step(self, group: dict[str, Any]) -> None:
        parameters: list[nn.Parameter] = group["params"]
        taken, group["taken"] = group["taken"], group["taken"] + 1
        if all(parameter.grad is None for parameter in parameters):
            return
        gradient = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        theta = torch.cat([parameter.detach().flatten() for parameter in parameters])
        change = self.direction(theta, gradient, taken) * group["lr"]
        reach = self.config.reach * group["lr"] / group["initial_lr"]
        # (x, (G + mu) x) = (x, g) for what CG has at any time and for exact solutions, so it costs no further product
        length = (group["lr"] * (change @ gradient)).clamp_min(0).sqrt()
        change = change * (reach / length.clamp_min(reach))
        pieces = torch.split(change, [parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.data.sub_(piece.view_as(parameter))
            parameter.grad = None

    def direction(self, theta: Float[Tensor, " p"], gradient: Float[Tensor, " p"], step: int) -> Float[Tensor, " p"]:
        """The solution z of (G + mu) z = gradient, with the metric of this step at theta.

        Raises:
            InputError: As for `step`; so is FloatingPointError.
        """
        try:
            metric = PullbackMetric(self._points(step), theta)
            if not bool(metric.outputs.isfinite().all()):
                raise FloatingPointError("the motion is not finite any more: lower optimizer.rpwgf.reach")
            return solve(metric, gradient, self.config.solver_config()).x
        except NotImplementedError as error:  # operations of torch without a forward derivative
            what = "the motion has no forward derivative, which products with the metric need"
            raise InputError("optimizer.rpwgf.solver", what, "set it to dual") from error
        except (ValueError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            what = f"the metric of the motion cannot be inverted with damping {self.config.damping:g}"
            raise InputError("optimizer.rpwgf.damping", what, "raise it, or set solver=minres") from error
