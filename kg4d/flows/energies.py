r"""Energies of densities, :math:`\mathcal F(\rho)`, by Monte Carlo, and what drives their flows.

The Wasserstein gradient flow of an energy moves mass with the velocity
:math:`-\nabla \frac{\delta \mathcal F}{\delta \rho}`. Each energy gives its value on a sample, differentiable, so that
common reference points give a smooth function of theta, and its variational derivative at points.

Source: Jordan, Kinderlehrer, Otto, SIAM J. Math. Anal. 1998; Carrillo, McCann, Villani 2003.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.laws import Law
from kg4d.flows.maps import PushForward


class Sample(NamedTuple):
    """Points of a law, and its density at them where an energy asks for it."""

    points: Float[Tensor, "B d"]
    log_density: Float[Tensor, " B"] | None


class Energy(ABC):
    """A functional of a density.

    Attributes:
        needs_density: Whether samples must come with their density.
    """

    needs_density: bool = False

    @abstractmethod
    def value(self, sample: Sample) -> Float[Tensor, ""]:
        """Monte-Carlo estimate from independent points of the law."""

    @abstractmethod
    def variation(self, at: Sample, law: Sample) -> Float[Tensor, " B"]:
        """The variational derivative at the points `at` of the law that `law` is a sample of, up to a constant."""

    def __add__(self, other: "Energy") -> "Sum":
        """Both together."""
        return Sum((self, other))

    def density(self, sample: Sample) -> Float[Tensor, " B"]:
        """Log density of the sample.

        Raises:
            ValueError: The sample comes without.
        """
        if sample.log_density is None:
            raise ValueError(f"{type(self).__name__} needs the density of the sample")
        return sample.log_density


@dataclass(frozen=True)
class Sum(Energy):
    """Energies that add up."""

    parts: tuple[Energy, ...]

    @property
    def needs_density(self) -> bool:  # type: ignore[override]
        """Whether any of them does."""
        return any(part.needs_density for part in self.parts)

    def value(self, sample: Sample) -> Float[Tensor, ""]:
        """The sum."""
        return torch.stack([part.value(sample) for part in self.parts]).sum()

    def variation(self, at: Sample, law: Sample) -> Float[Tensor, " B"]:
        """The sum."""
        return torch.stack([part.variation(at, law) for part in self.parts]).sum(0)


@dataclass(frozen=True)
class Potential(Energy):
    r""":math:`\int V \rho`; the flow goes down V.

    Attributes:
        potential: V, (B, d) points to (B,).
    """

    potential: Callable[[Tensor], Tensor]

    def value(self, sample: Sample) -> Float[Tensor, ""]:
        """Mean of V."""
        return self.potential(sample.points).mean()

    def variation(self, at: Sample, law: Sample) -> Float[Tensor, " B"]:
        """V."""
        return self.potential(at.points)


@dataclass(frozen=True)
class Entropy(Energy):
    r""":math:`D \int \rho \log \rho`; the flow is diffusion, :math:`D \Delta \rho`.

    Attributes:
        diffusion: D > 0.
    """

    diffusion: float = 1.0
    needs_density = True

    def value(self, sample: Sample) -> Float[Tensor, ""]:
        """D times the mean log density."""
        return self.diffusion * self.density(sample).mean()

    def variation(self, at: Sample, law: Sample) -> Float[Tensor, " B"]:
        """D (log density + 1)."""
        return self.diffusion * (self.density(at) + 1)


@dataclass(frozen=True)
class Internal(Energy):
    r""":math:`\frac{1}{m-1} \int \rho^m`; the flow is the porous medium equation :math:`\Delta \rho^m`.

    Attributes:
        exponent: m > 1.
    """

    exponent: float = 2.0
    needs_density = True

    def value(self, sample: Sample) -> Float[Tensor, ""]:
        """Mean of rho^(m-1) / (m-1)."""
        m = self.exponent
        return ((m - 1) * self.density(sample)).exp().mean() / (m - 1)

    def variation(self, at: Sample, law: Sample) -> Float[Tensor, " B"]:
        """m / (m-1) rho^(m-1)."""
        m = self.exponent
        return m / (m - 1) * ((m - 1) * self.density(at)).exp()


@dataclass(frozen=True)
class Interaction(Energy):
    r""":math:`\frac12 \iint W(x - y) \rho \rho`; the flow is aggregation, :math:`\nabla\cdot(\rho \nabla (W * \rho))`.

    The half is what makes W * rho the variational derivative, for an even W.

    Attributes:
        kernel: W, (..., d) differences to (...).
    """

    kernel: Callable[[Tensor], Tensor]

    def value(self, sample: Sample) -> Float[Tensor, ""]:
        """Half the mean of W over all pairs; a pair of a point with itself counts, as W(0)."""
        x = sample.points
        return self.kernel(x[:, None] - x[None]).mean() / 2

    def variation(self, at: Sample, law: Sample) -> Float[Tensor, " B"]:
        """Mean of W towards the law's points."""
        return self.kernel(at.points[:, None] - law.points[None]).mean(1)


def kullback_leibler(target: Law) -> Sum:
    """KL(rho | target), for a target whose density is known."""
    return Potential(lambda x: -target.log_density(x)) + Entropy()


def push(
    push_forward: PushForward, base: Law, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"], density: bool = True
) -> Sample:
    """What theta makes of reference points, with their density by the change of variables if `density`."""
    if not density:
        return Sample(push_forward(theta, z), None)
    x, log_det = push_forward.with_log_det(theta, z)
    return Sample(x, base.log_density(z) - log_det)


def wasserstein_gradient(
    energy: Energy, push_forward: PushForward, base: Law, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]
) -> Float[Tensor, "B d"]:
    r""":math:`\nabla \frac{\delta \mathcal F}{\delta \rho}` at the moved points: mass flows against it.

    By the chain rule through z, :math:`(\partial_z T)^{-T} \nabla_z`, so no inverse of the map is needed.
    """
    z = z.detach().requires_grad_()
    sample = push(push_forward, base, theta.detach(), z, energy.needs_density)
    density = sample.log_density
    law = Sample(sample.points.detach(), None if density is None else density.detach())
    (by_z,) = torch.autograd.grad(energy.variation(sample, law).sum(), z)
    derivative = push_forward.derivative(theta.detach(), z.detach())
    by_x: Tensor = torch.linalg.solve(derivative.mT, by_z[..., None])[..., 0]
    return by_x
