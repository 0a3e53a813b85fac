"""No motion: the floor that every deformation must beat."""

from jaxtyping import Float
from torch import Tensor, nn

from kg4d.deform.base import DeformedGeometry
from kg4d.gaussians.state import GaussianState


class StaticDeformation(nn.Module):
    """The identity at every time; it has no parameters."""

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> DeformedGeometry:
        """Repeat the canonical geometry for each time."""
        batch = len(times)
        return DeformedGeometry(
            means=canonical.means.expand(batch, -1, -1),
            quats=canonical.quats.expand(batch, -1, -1),
            scales=canonical.scales.expand(batch, -1, -1),
        )
