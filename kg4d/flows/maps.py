r"""Push-forward maps :math:`T_\theta : \mathbb R^d \to \mathbb R^d`, as pure functions of one flat parameter vector.

The law of :math:`T_\theta(z)`, z from a reference law, is the model that flows move. By the change of variables its
density at :math:`T_\theta(z)` is :math:`\lambda(z) / |\det \partial_z T_\theta(z)|`.

Source: Liu, Li, Zha, Zhou, Neural parametric Fokker-Planck equations, SIAM J. Numer. Anal. 2022.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap
from torch.nn import functional as F


class PushForward(ABC):
    """A map of points with parameters theta.

    Attributes:
        dim: Number d of coordinates.
    """

    dim: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Number p of parameters."""

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Float[Tensor, " p"]:
        """Parameters at which the map is the identity."""

    @abstractmethod
    def __call__(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        """The moved points."""

    def with_log_det(
        self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]
    ) -> tuple[Float[Tensor, "B d"], Float[Tensor, " B"]]:
        """The moved points and log |det| of the map's derivative by z, from the full derivative: d backward passes."""
        _, log_det = torch.linalg.slogdet(self.derivative(theta, z))
        return self(theta, z), log_det

    def derivative(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B d d"]:
        """How the moved points change with z: row i is the gradient of coordinate i."""

        def single(point: Tensor) -> Tensor:
            return self(theta, point[None])[0]

        return vmap(jacrev(single))(z)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Affine(PushForward):
    """T(z) = U z + b.

    >>> T = Affine(2)
    >>> T(T.initial(torch.Generator()), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.]])
    """

    dim: int

    @property
    def size(self) -> int:
        """U row by row, then b."""
        return self.dim * (self.dim + 1)

    def initial(self, generator: torch.Generator) -> Float[Tensor, " p"]:
        """U = 1, b = 0: nothing is random here."""
        return torch.cat([torch.eye(self.dim).flatten(), torch.zeros(self.dim)])

    def parts(self, theta: Float[Tensor, " p"]) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
        """U and b."""
        return theta[: self.dim**2].view(self.dim, self.dim), theta[self.dim**2 :]

    def __call__(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        """The moved points."""
        U, b = self.parts(theta)
        return z @ U.mT + b

    def with_log_det(
        self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]
    ) -> tuple[Float[Tensor, "B d"], Float[Tensor, " B"]]:
        """The moved points and log |det U|, -inf where U is singular."""
        return self(theta, z), torch.linalg.slogdet(self.parts(theta)[0])[1].expand(len(z))


@dataclass(frozen=True)
class LinearBasis(PushForward):
    r""":math:`T(z) = z + \sum_k \varphi_k(z) \theta_k`, vectors :math:`\theta_k`, so that theta = 0 is the identity.

    Attributes:
        dim: Number of coordinates.
        count: Number m of basis functions.
        basis: (B, d) points to (B, m) values.
    """

    dim: int
    count: int
    basis: Callable[[Tensor], Tensor]

    @property
    def size(self) -> int:
        """One vector a function."""
        return self.count * self.dim

    def initial(self, generator: torch.Generator) -> Float[Tensor, " p"]:
        """Zeros: nothing is random here."""
        return torch.zeros(self.size)

    def __call__(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        """The moved points."""
        return z + self.basis(z) @ theta.view(self.count, self.dim)


@dataclass(frozen=True)
class Planar(PushForward):
    r"""Normalising flow of layers :math:`x + \tanh(w \cdot x + b)\, \hat u`, invertible for every theta.

    A layer is invertible iff :math:`w \cdot \hat u > -1`. That is kept by moving u along w (Rezende & Mohamed 2015,
    appendix A.1), :math:`w \cdot \hat u = m(w \cdot u)`. Here m(a) = a for a >= 0 and :math:`.999 (e^{a / .999} - 1)`
    below, which stays further from -1 than rounding reaches. The source's softplus changes small a by a share of a,
    so that the layer turns without bound as w shrinks to 0; this m changes them by a² only.

    Attributes:
        dim: Number of coordinates.
        layers: Number K of layers.
        spread: Standard deviation of each entry of the first w and b. It is what a layer can bend at birth.
    """

    dim: int
    layers: int
    spread: float = 0.5

    @property
    def size(self) -> int:
        """All w, all u, all b."""
        return self.layers * (2 * self.dim + 1)

    def initial(self, generator: torch.Generator) -> Float[Tensor, " p"]:
        """Random w and b, u = 0."""
        w = self.spread * torch.randn(self.layers * self.dim, generator=generator)
        b = self.spread * torch.randn(self.layers, generator=generator)
        return torch.cat([w, torch.zeros(self.layers * self.dim), b])

    def parts(
        self, theta: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "K d"], Float[Tensor, "K d"], Float[Tensor, " K"], Float[Tensor, " K"]]:
        r"""w, :math:`\hat u`, b and :math:`w \cdot \hat u > -1` of each layer."""
        at = self.layers * self.dim
        w, u, b = theta[:at].view(-1, self.dim), theta[at : 2 * at].view(-1, self.dim), theta[2 * at :]
        along = (w * u).sum(-1)
        kept = 0.999 * F.elu(along / 0.999)
        length = w.square().sum(-1).clamp_min(torch.finfo(theta.dtype).tiny)
        return w, u + ((kept - along) / length)[:, None] * w, b, kept

    def __call__(self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        """The moved points."""
        w, u, b, _ = self.parts(theta)
        for k in range(self.layers):
            z = z + torch.tanh(z @ w[k] + b[k])[:, None] * u[k]
        return z

    def with_log_det(
        self, theta: Float[Tensor, " p"], z: Float[Tensor, "B d"]
    ) -> tuple[Float[Tensor, "B d"], Float[Tensor, " B"]]:
        r"""The moved points and the sum of :math:`\log(1 + \tanh'\, w \cdot \hat u)` over the layers."""
        w, u, b, kept = self.parts(theta)
        log_det = torch.zeros_like(z[:, 0])
        for k in range(self.layers):
            bend = torch.tanh(z @ w[k] + b[k])
            log_det = log_det + torch.log1p((1 - bend.square()) * kept[k])
            z = z + bend[:, None] * u[k]
        return z, log_det

    def inverse(self, theta: Float[Tensor, " p"], x: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
        r"""The points that theta moves to x, without gradient.

        Along w a layer is :math:`a + (w \cdot \hat u) \tanh(a + b)`, which grows with a: halving finds it.
        """
        w, u, b, kept = (part.detach() for part in self.parts(theta))
        for k in reversed(range(self.layers)):
            wanted = x @ w[k]
            low, high = wanted - kept[k].abs(), wanted + kept[k].abs()
            for _ in range(64):  # more than the bits of a float64
                middle = (low + high) / 2
                above = middle + kept[k] * torch.tanh(middle + b[k]) > wanted
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            x = x - torch.tanh((low + high) / 2 + b[k])[:, None] * u[k]
        return x
