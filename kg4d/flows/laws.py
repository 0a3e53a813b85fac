"""Laws whose densities are known: where reference points come from, and where flows must arrive."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Law(Protocol):
    """A probability law on R^d that can be sampled."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "B d"]:
        """Independent points."""

    def log_density(self, x: Float[Tensor, "B d"]) -> Float[Tensor, " B"]:
        """Logarithm of the density, differentiable in x where it is positive."""


@dataclass(frozen=True)
class Gaussian:
    """Normal law.

    Attributes:
        mean: Its centre.
        cov: Its covariance, symmetric and positive definite.

    >>> standard_normal(1).log_density(torch.zeros(1, 1)).exp()  # 1 / sqrt(2 pi)
    tensor([0.3989])
    """

    mean: Float[Tensor, " d"]
    cov: Float[Tensor, "d d"]

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "B d"]:
        """Independent points."""
        z = torch.randn(count, len(self.mean), generator=generator, dtype=self.mean.dtype)
        points: Tensor = z @ torch.linalg.cholesky(self.cov).mT + self.mean
        return points

    def log_density(self, x: Float[Tensor, "B d"]) -> Float[Tensor, " B"]:
        """Logarithm of the density."""
        root = torch.linalg.cholesky(self.cov)
        white = torch.linalg.solve_triangular(root, (x - self.mean).mT, upper=False)
        normaliser = root.diagonal().log().sum() + len(self.mean) / 2 * math.log(2 * math.pi)
        found: Tensor = -white.square().sum(0) / 2 - normaliser
        return found


def standard_normal(dim: int, dtype: torch.dtype = torch.float32) -> Gaussian:
    """N(0, 1) in `dim` dimensions."""
    return Gaussian(torch.zeros(dim, dtype=dtype), torch.eye(dim, dtype=dtype))


def whitened(z: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
    """The same points moved affinely to mean 0 and covariance 1: sums of quadratics are then exact.

    Raises:
        ValueError: There are no more points than dimensions.
    """
    if len(z) <= z.shape[1]:
        raise ValueError(f"{len(z)} points cannot have covariance 1 in {z.shape[1]} dimensions")
    z = z - z.mean(0)
    root = torch.linalg.cholesky(z.mT @ z / len(z))
    white: Tensor = torch.linalg.solve_triangular(root, z.mT, upper=False).mT
    return white


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    r"""The law at each time of :math:`\partial_t \rho = \nabla \cdot (\rho \nabla V) + D \Delta \rho` from a Gaussian.

    V is quadratic, :math:`V(x) = (x - \mu)^T Q (x - \mu) / 2`, so the law stays Gaussian.

    Attributes:
        centre: mu, the minimum of V.
        precision: Q, symmetric and positive definite.
        start: The law at time 0.
        diffusion: D > 0.
    """

    centre: Float[Tensor, " d"]
    precision: Float[Tensor, "d d"]
    start: Gaussian
    diffusion: float = 1.0

    def potential(self, x: Float[Tensor, "B d"]) -> Float[Tensor, " B"]:
        """V."""
        return ((x - self.centre) @ self.precision * (x - self.centre)).sum(-1) / 2

    def at(self, time: float) -> Gaussian:
        r"""Mean :math:`\mu + e^{-Qt}(m_0 - \mu)`, covariance :math:`D Q^{-1} + e^{-Qt} (C_0 - D Q^{-1}) e^{-Qt}`."""
        decay = torch.linalg.matrix_exp(-time * self.precision)
        stationary = self.diffusion * torch.linalg.inv(self.precision)
        cov = stationary + decay @ (self.start.cov - stationary) @ decay
        return Gaussian(self.centre + decay @ (self.start.mean - self.centre), (cov + cov.mT) / 2)


@dataclass(frozen=True)
class Barenblatt:
    r"""The source solution of the porous medium equation :math:`\partial_t \rho = \Delta \rho^m`, of mass 1.

    :math:`\rho(x) = t^{-d\beta} (C - k |x|^2 t^{-2\beta})_+^{1/(m-1)}` with :math:`\beta = 1 / (d(m-1) + 2)` and
    :math:`k = \beta (m-1) / (2m)` (Vázquez, The Porous Medium Equation, 2007, section 4.4.2).

    Attributes:
        dim: d.
        exponent: m > 1.
        time: t > 0.

    >>> round(Barenblatt(1, 2.0, 1.0).radius, 4)  # mass 4/3 k R³ = 1 with k = 1/12
    2.0801
    """

    dim: int
    exponent: float
    time: float

    @property
    def beta(self) -> float:
        """How its radius grows: t^beta."""
        return 1 / (self.dim * (self.exponent - 1) + 2)

    @property
    def radius(self) -> float:
        """Where the density ends."""
        d, power = self.dim, 1 / (self.exponent - 1)
        k = self.beta * (self.exponent - 1) / (2 * self.exponent)
        # mass = k^power R^(d + 2 power) |unit sphere| B(d/2, power + 1) / 2 at time 1
        log_sphere = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)
        log_beta = math.lgamma(d / 2) + math.lgamma(power + 1) - math.lgamma(d / 2 + power + 1)
        log_mass = power * math.log(k) + log_sphere + log_beta - math.log(2)
        return math.exp(-log_mass / (d + 2 * power)) * float(self.time**self.beta)

    def log_density(self, x: Float[Tensor, "B d"]) -> Float[Tensor, " B"]:
        """Logarithm of the density, -inf outside the radius."""
        scale = self.time**-self.beta
        k = self.beta * (self.exponent - 1) / (2 * self.exponent)
        inside: Tensor = k * ((self.radius * scale) ** 2 - x.square().sum(-1) * scale**2)
        return inside.clamp_min(0.0).log() / (self.exponent - 1) + self.dim * math.log(scale)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "B d"]:
        """Independent points: (|x| / radius)² has the law Beta(d / 2, 1 + 1 / (m - 1)).

        Raises:
            ValueError: 2 / (m - 1) is no whole number, for which there is no short exact way.
        """
        extra = 2 + 2 / (self.exponent - 1)
        if abs(extra - round(extra)) > 1e-9:
            raise ValueError(f"need a whole 2 / (m - 1), got m = {self.exponent}")
        # The first d coordinates of a uniform direction in d + extra dimensions have just this law.
        direction = torch.randn(count, self.dim + round(extra), generator=generator)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        points: Tensor = self.radius * direction[:, : self.dim]
        return points
