"""The KG4D deformation: harmonic features of position and time, and an MLP (KG4D section 4.2)."""

from jaxtyping import Float
from torch import Tensor

from kg4d.deform.base import Deformation
from kg4d.deform.encoding import HSE
from kg4d.deform.offsets import OffsetMlp, anchored, apply_offsets
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState


class HseMlp(Deformation):
    """Offsets as a function of HSE(mu, t); the positions that it reads are detached."""

    def __init__(self, encoding: HSE, mlp: OffsetMlp, anchor_first: bool, learning_rate: float) -> None:
        super().__init__()
        self.encoding = encoding
        self.mlp = mlp
        self.anchor_first = anchor_first
        self.learning_rate = learning_rate

    def forward(self, canonical: GaussianState, times: Float[Tensor, " B"]) -> MovingGaussians:
        """Move the canonical Gaussians to `times`."""
        space = self.encoding.space(canonical.means.detach())

        def offsets_at(times: Float[Tensor, " R"]) -> Float[Tensor, "R N O"]:
            offsets: Tensor = self.mlp(space, self.encoding.time(times))
            return offsets

        offsets = anchored(offsets_at, times) if self.anchor_first else offsets_at(times)
        return apply_offsets(MovingGaussians.still(canonical, len(times)), offsets)
