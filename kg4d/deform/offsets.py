"""What the learned deformations share: the network behind the features, and how its outputs move the Gaussians."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.deform.settings import Activation
from kg4d.gaussians.moving import MovingGaussians


class OffsetMlp(nn.Module):
    """An MLP from features of (point, time) to translations (3), rotations (4), scalings (3, 1 or none).

    The last layer starts at zero, so every output does. The first layer is linear, so its product with the features
    that depend on the point alone is formed N times, with those of the time alone B times, and only features that
    depend on both cost B N times; the function is that of a plain MLP on [space, time, joint].
    """

    def __init__(
        self,
        space_width: int,
        time_width: int,
        joint_width: int,
        *,
        width: int,
        depth: int,
        activation: Activation,
        scalings: int,
        generator: torch.Generator,
    ) -> None:
        """Widths count features of each kind (0: none); `depth` counts hidden layers, `width` their units.

        `scalings` is 3, 1 or 0, or 7 with changes of colours and opacity.

        Raises:
            ValueError: There is no hidden layer or no unit.
        """
        super().__init__()
        if depth < 1 or width < 1:
            raise ValueError(f"need at least one hidden layer of one unit, got depth {depth} and width {width}")
        self._widths = [space_width, time_width, joint_width]
        self.first = linear(sum(self._widths), width, generator)
        head = linear(width, 7 + scalings, generator)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.activation = _activation(activation)
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [linear(width, width, generator), _activation(activation)]
        self.rest = nn.Sequential(*layers, head)

    def forward(
        self,
        space: Float[Tensor, "N Fs"] | None,
        time: Float[Tensor, "B Ft"] | None,
        joint: Float[Tensor, "B N Fj"] | None = None,
    ) -> Float[Tensor, "B N O"]:
        """Offsets of every point at every time; parts of width 0 are None."""
        by_space, by_time, by_joint = torch.split(self.first.weight, self._widths, dim=1)
        x: Tensor = self.first.bias
        if time is not None:
            x = torch.addmm(x, time, by_time.mT)[:, None]
        if space is not None:
            x = x + space @ by_space.mT
        if joint is not None:
            x = x + joint @ by_joint.mT
        # activated before it is flattened: autograd would copy the gradient of a view that is changed in place
        x = self.activation(x)
        offsets: Tensor = self.rest(x.flatten(0, 1))  # two axes: each layer is one large matrix product
        return offsets.reshape(*x.shape[:2], -1)


def anchored(
    offsets_at: Callable[[Tensor], Float[Tensor, "R *points O"]], times: Float[Tensor, " B"]
) -> Float[Tensor, "B *points O"]:
    """What a function of time has changed by since time 0: nothing there, and little soon after.

    Args:
        offsets_at: The function; it is asked once, for a tensor of R times.
        times: In [0, 1].
    """
    offsets = offsets_at(torch.cat([times, times.new_zeros(1)]))
    since = offsets[:-1] - offsets[-1:]
    moving = (times > 0).reshape(-1, *[1] * (since.ndim - 1))
    return torch.where(moving, since, 0)  # exactly: rows of a matrix product may differ in their last bits


def apply_offsets(gaussians: MovingGaussians, offsets: Float[Tensor, "B N O"]) -> MovingGaussians:
    """Translate the centres, add to the unit quaternions, and scale by the exponential.

    A quaternion keeps the norm it has: q + |q| r is the rotation of q / |q| + r, and q itself where r is 0.

    Args:
        gaussians: At B times. Gradients reach them by the sums and products here.
        offsets: From `OffsetMlp`.
    """
    translations, rotations, scalings = torch.split(offsets, [3, 4, offsets.shape[-1] - 7], dim=-1)
    quats, scales = gaussians.ellipsoids
    return replace(
        gaussians,
        means=gaussians.means + translations,
        quats=quats + quats.norm(dim=-1, keepdim=True) * rotations,
        scales=scales * scalings.exp(),
    )


def _activation(kind: Activation) -> nn.Module:
    match kind:
        case Activation.RELU:
            return nn.ReLU(inplace=True)  # its backward needs the output only, and that of a linear layer none
        case Activation.SILU:
            return nn.SiLU()
        case _:
            assert_never(kind)


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer with torch's usual start, drawn from `generator`."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # leaves the global generator alone
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator)
    return layer
