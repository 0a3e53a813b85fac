"""What every deformation is: canonical Gaussians and times in, moved Gaussians out."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from kg4d.gaussians.state import GaussianState


@dataclass(frozen=True)
class DeformedGeometry:
    """Geometry of N Gaussians at B times. Opacities and keypoint features do not change.

    Attributes:
        means: Centres, world units.
        quats: Rotations.
        scales: Standard deviations along the local axes, world units.
        gains: Factors on the colours; None where these do not change.
    """

    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]
    scales: Float[Tensor, "B N 3"]
    gains: Float[Tensor, "B N 3"] | None = None

    def at(self, index: int, canonical: GaussianState) -> GaussianState:
        """The whole Gaussians at the `index`-th of the B times."""
        colors = canonical.colors if self.gains is None else canonical.colors * self.gains[index]
        return replace(
            canonical, means=self.means[index], quats=self.quats[index], scales=self.scales[index], colors=colors
        )


@runtime_checkable  # for the tests, which check arguments at run time
class CarriesKeypoints(Protocol):
    """A deformation that knows itself where the keypoints are."""

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """World positions at `times`, each in [0, 1]."""
        ...


@runtime_checkable
class Deformation(Protocol):
    """A module with that call; at birth it is the identity at every time (locked by one contract test)."""

    def __call__(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> DeformedGeometry:
        """Move the canonical Gaussians to `times`, each in [0, 1]."""
        ...
