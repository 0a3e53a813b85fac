"""What a natural gradient of the motion measures its steps by: where Gaussians are at any time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize

from kg4d.data.batches.batch import step_generator
from kg4d.errors import InputError
from kg4d.flows.networks import FlatModule
from kg4d.geometry.rotations import quat_to_matrix
from kg4d.optim.natural_gradient import Motion, Points
from kg4d.representation.base import Representation

_TIMES = 8  # one from each of as many equal parts of the clip


class MovedGaussians(nn.Module):
    r"""(Gaussian, time) to the moved Gaussian: its centre m, and its axes A = R diag(s).

    A Gaussian is the law of m + A z for a normal z, so :math:`|dm|^2 + |dA|^2` is how far a change moves its mass,
    squared, in the mean over z.
    """

    def __init__(self, representation: Representation) -> None:
        super().__init__()
        self.representation = representation

    def forward(self, only: Int[Tensor, " n"], times: Float[Tensor, " T"]) -> Float[Tensor, "B 12"]:
        """Some Gaussians at each of some times, B = T n; world units."""
        moving = self.representation.states(times, only)
        quats, scales = moving.ellipsoids
        axes = quat_to_matrix(normalize(quats, dim=-1)) * scales[..., None, :]
        moved: Tensor = torch.cat([moving.means, axes.flatten(2)], dim=-1)
        return moved.flatten(0, 1)


def motion_of(representation: Representation, points: int, seed: int) -> Motion:
    """The motion as a map of its shared parameters; those that move nothing, such as a light, are left out.

    Args:
        representation: What moves.
        points: About how many moved Gaussians a step is measured by.
        seed: Of which ones.

    Raises:
        InputError: How a Gaussian moves depends on the others, so that some of them do not tell how the motion changes.
    """
    if not representation.pointwise:
        what = "rpwgf measures some of the Gaussians, and this motion needs all of them"
        raise InputError("optimizer.kind", what, "set it to adam")
    device = representation.rest().means.device
    moved = MovedGaussians(representation)

    def drawn(step: int) -> tuple[Int[Tensor, " n"], Float[Tensor, " T"]]:
        generator = step_generator(seed, "points of the metric", step)
        only = torch.randint(len(representation.rest()), (max(1, round(points / _TIMES)),), generator=generator)
        times = (torch.arange(_TIMES) + torch.rand(_TIMES, generator=generator)) / _TIMES
        return only.to(device), times.to(device)

    flat = FlatModule(moved, _moving(moved, representation.shared_motion(), drawn(0)))

    def at(step: int) -> Points:
        only, times = drawn(step)
        return lambda theta: flat(theta, only, times)

    return Motion(flat.parameters, at)


def _moving(module: nn.Module, candidates: list[nn.Parameter], inputs: tuple[Tensor, ...]) -> list[nn.Parameter]:
    """Those of the candidates that the module's output depends on."""
    ids = {id(parameter) for parameter in candidates}
    named = {name: parameter for name, parameter in module.named_parameters() if id(parameter) in ids}
    leaves = {name: parameter.detach().requires_grad_() for name, parameter in named.items()}
    if not leaves:
        return []
    with torch.enable_grad():
        output = functional_call(module, leaves, inputs)
        gradients = torch.autograd.grad(output.sum(), list(leaves.values()), allow_unused=True)
    return [parameter for parameter, gradient in zip(named.values(), gradients, strict=True) if gradient is not None]
