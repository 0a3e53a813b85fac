"""No motion: the floor that every deformation must beat."""

from jaxtyping import Float
from torch import Tensor

from kg4d.deform.base import Deformation
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState


class Identity(Deformation):
    """The identity at every time; it has no parameters."""

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> MovingGaussians:
        """Repeat the canonical Gaussians for each time."""
        return MovingGaussians.still(canonical, len(times))
