"""The record of Gaussians that move: what changes in time has an axis of times, what does not is shared."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from kg4d.gaussians.state import GaussianState, check_shape, shape_of
from kg4d.geometry.covariances import Ellipsoids

_OPTIONAL = ("quats", "scales", "covariances", "colors", "opacities", "velocities")


@dataclass(frozen=True)
class MovingGaussians:
    """N Gaussians at B times.

    Attributes:
        base: What does not change; its other fields are those of the canonical Gaussians.
        means: Centres, world units.
        quats: Rotations (w, x, y, z); any norm but zero. None where there are covariances.
        scales: Standard deviations along the local axes, world units. None where there are covariances.
        colors: RGB; None where the colours are those of `base`.
        opacities: In [0, 1); None where they are those of `base`.
        covariances: Shapes in place of `quats` and `scales`, as in `GaussianState`; None where there are those.
        velocities: World units per unit of time, where the representation knows them; else None.

    Raises:
        ValueError: There is no shape, or there are two.
    """

    base: GaussianState
    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"] | None
    scales: Float[Tensor, "B N 3"] | None
    colors: Float[Tensor, "B N 3"] | None = None
    opacities: Float[Tensor, "B N"] | None = None
    covariances: Float[Tensor, "B N 6"] | None = None
    velocities: Float[Tensor, "B N 3"] | None = None

    def __post_init__(self) -> None:
        check_shape(self.quats, self.scales, self.covariances)

    @property
    def ellipsoids(self) -> Ellipsoids:
        """Rotations and scales; those of covariances are found without history, in an order of their own."""
        return shape_of(self.quats, self.scales, self.covariances)

    @classmethod
    def still(cls, base: GaussianState, count: int) -> "MovingGaussians":
        """The same Gaussians at each of `count` times."""

        def repeated(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.expand(count, -1, -1)

        return cls(
            base,
            means=base.means.expand(count, -1, -1),
            quats=repeated(base.quats),
            scales=repeated(base.scales),
            covariances=repeated(base.covariances),
        )

    def __len__(self) -> int:
        """The number of times, B."""
        return self.means.shape[0]

    def at(self, index: int) -> GaussianState:
        """The whole Gaussians at the `index`-th of the times."""
        own = self._indexed(index)
        return replace(
            self.base,
            means=self.means[index],
            quats=own["quats"],
            scales=own["scales"],
            covariances=own["covariances"],
            colors=self.base.colors if own["colors"] is None else own["colors"],
            opacities=self.base.opacities if own["opacities"] is None else own["opacities"],
        )

    def first(self, count: int) -> "MovingGaussians":
        """The same at the first `count` times."""
        return MovingGaussians(self.base, self.means[:count], **self._indexed(slice(count)))

    def _indexed(self, index: int | slice) -> dict[str, Tensor | None]:
        """What may be missing, at some of the times."""
        values = {name: getattr(self, name) for name in _OPTIONAL}
        return {name: None if value is None else value[index] for name, value in values.items()}

    def states(self) -> list[GaussianState]:
        """The whole Gaussians at each of the times."""
        return [self.at(index) for index in range(len(self))]
