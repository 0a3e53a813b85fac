"""The record of Gaussians that move: what changes in time has an axis of times, what does not is shared."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from kg4d.gaussians.state import GaussianState


@dataclass(frozen=True)
class MovingGaussians:
    """N Gaussians at B times.

    Attributes:
        base: What does not change; its other fields are those of the canonical Gaussians.
        means: Centres, world units.
        quats: Rotations (w, x, y, z); any norm but zero.
        scales: Standard deviations along the local axes, world units.
        colors: RGB; None where the colours are those of `base`.
        opacities: In (0, 1); None where they are those of `base`.
    """

    base: GaussianState
    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]
    scales: Float[Tensor, "B N 3"]
    colors: Float[Tensor, "B N 3"] | None = None
    opacities: Float[Tensor, "B N"] | None = None

    @classmethod
    def still(cls, base: GaussianState, count: int) -> "MovingGaussians":
        """The same Gaussians at each of `count` times."""
        return cls(
            base,
            means=base.means.expand(count, -1, -1),
            quats=base.quats.expand(count, -1, -1),
            scales=base.scales.expand(count, -1, -1),
        )

    def __len__(self) -> int:
        """The number of times, B."""
        return self.means.shape[0]

    def at(self, index: int) -> GaussianState:
        """The whole Gaussians at the `index`-th of the times."""
        return replace(
            self.base,
            means=self.means[index],
            quats=self.quats[index],
            scales=self.scales[index],
            colors=self.base.colors if self.colors is None else self.colors[index],
            opacities=self.base.opacities if self.opacities is None else self.opacities[index],
        )

    def first(self, count: int) -> "MovingGaussians":
        """The same at the first `count` times."""
        colors = None if self.colors is None else self.colors[:count]
        opacities = None if self.opacities is None else self.opacities[:count]
        return MovingGaussians(
            self.base, self.means[:count], self.quats[:count], self.scales[:count], colors, opacities
        )

    def states(self) -> list[GaussianState]:
        """The whole Gaussians at each of the times."""
        return [self.at(index) for index in range(len(self))]
