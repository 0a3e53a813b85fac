"""Push-forward maps out of networks: z + f(z), and the flow of dx/dt = f(x).

A network comes in as any `nn.Module` that maps (B, d) to (B, d); `FlatModule` makes it a function of one vector.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import skip_init

from kg4d.flows.maps import PushForward


class FlatModule:
    """A module as a function of its parameters in one vector.

    The module itself is never changed; its buffers, and parameters that are left out, count as constants.

    Args:
        module: Anything whose forward is differentiable.
        chosen: Which of its parameters; those that are trainable when None. The vector has them in the module's order.

    >>> flat = FlatModule(nn.Linear(2, 1))
    >>> flat(torch.tensor([3.0, 4.0, 5.0]), torch.ones(1, 2))
    tensor([[12.]])
    """

    def __init__(self, module: nn.Module, chosen: Iterable[nn.Parameter] | None = None) -> None:
        self.module = module
        ids = {id(p) for p in (filter(_trainable, module.parameters()) if chosen is None else chosen)}
        self.parameters = [p for p in module.parameters() if id(p) in ids]
        self.shapes = {name: p.shape for name, p in module.named_parameters() if id(p) in ids}
        self.size = sum(shape.numel() for shape in self.shapes.values())

    def initial(self) -> Float[Tensor, " p"]:
        """A copy of the module's own parameters."""
        named = dict(self.module.named_parameters())
        return torch.cat([named[name].detach().flatten() for name in self.shapes])

    def named(self, theta: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """The vector cut into the module's parameters."""
        cuts = torch.split(theta, [shape.numel() for shape in self.shapes.values()])
        return {name: cut.view(shape) for (name, shape), cut in zip(self.shapes.items(), cuts, strict=True)}

    def __call__(self, theta: Float[Tensor, " p"], *inputs: Tensor) -> Tensor:
        """What the module makes of `inputs` with these parameters."""
        return functional_call(self.module, self.named(theta), inputs)  # type: ignore[no-any-return]


def _trainable(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad


def perceptron(
    dim: int, width: int, depth: int, generator: torch.Generator, out: int | None = None, at_zero: bool = True
) -> nn.Module:
    """A multilayer perceptron with tanh.

    Args:
        dim: Inputs.
        width: Units of a hidden layer.
        depth: Hidden layers.
        generator: Draws the weights, uniform within 1 / sqrt(inputs).
        out: Outputs; as many as inputs when None.
        at_zero: Start with a last layer of zeros, so that `ResidualMap` and `NeuralODE` are the identity at birth.
    """
    sizes = [dim, *[width] * depth, dim if out is None else out]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        linear: nn.Linear = skip_init(nn.Linear, before, after)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in (linear.weight, linear.bias):
                bound = before**-0.5
                parameter.copy_(bound * (2 * torch.rand(parameter.shape, generator=generator) - 1))
        layers += [linear, nn.Tanh()]
    if at_zero:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class ResidualMap(PushForward):
    """T(z) = z + f(z). Nothing keeps it invertible: densities hold as long as its derivative has no zero determinant.

    Attributes:
        dim: Number of coordinates.
        network: Builds f; `perceptron` with `at_zero`, for one.
    """

    dim: int
    network: FlatModule

    @property
    def size(self) -> int:
        """The parameters of f."""
        return self.network.size

    def initial(self, generator: torch.Generator) -> Float[Tensor, " p"]:
        """Those of the network as it was built, which was random already."""
        return self.network.initial()

    def __call__(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        """The moved points."""
        return z + self.network(theta, z)


@dataclass(frozen=True)
class NeuralODE(PushForward):
    """The solution at time 1 of dx/dt = f(x), x(0) = z, by the classical Runge-Kutta method with equal steps.

    The log-determinant is that of the discrete map, so densities are exact for what points really do.

    Attributes:
        dim: Number of coordinates.
        network: f, as in `ResidualMap`.
        steps: Number of Runge-Kutta steps.
    """

    dim: int
    network: FlatModule
    steps: int = 4

    @property
    def size(self) -> int:
        """The parameters of f."""
        return self.network.size

    def initial(self, generator: torch.Generator) -> Float[Tensor, " p"]:
        """Those of the network as it was built, which was random already."""
        return self.network.initial()

    def __call__(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        """The moved points."""
        parameters = self.network.named(theta)

        def field(x: Tensor) -> Tensor:
            return functional_call(self.network.module, parameters, x)  # type: ignore[no-any-return]

        for _ in range(self.steps):
            z = runge_kutta(field, z, 1 / self.steps)
        return z


def runge_kutta(field: Callable[[Tensor], Tensor], x: Float[Tensor, "B d"], step: float) -> Float[Tensor, "B d"]:
    """One classical step of fourth order for dx/dt = field(x)."""
    a = field(x)
    b = field(x + step / 2 * a)
    c = field(x + step / 2 * b)
    d = field(x + step * c)
    return x + step / 6 * (a + 2 * b + 2 * c + d)
