"""The frozen record of activated Gaussians: the currency between rooms."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GaussianState:
    """N Gaussians as a renderer or an exporter wants them: activated, in world units.

    Attributes:
        means: Centres, world units.
        quats: Rotations as quaternions (w, x, y, z); need not be normalised, never zero.
        scales: Standard deviations along the local axes, world units, > 0.
        opacities: In (0, 1).
        colors: RGB as rendered (no spherical harmonics above degree 0); 0 is black, 1 is white.
        keypoint_logits: Affinity P of each Gaussian to each of the J keypoints (KG4D eq. 7); J may be 0.
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    colors: Float[Tensor, "N 3"]
    keypoint_logits: Float[Tensor, "N J"]

    def __len__(self) -> int:
        return self.means.shape[0]

    def detach(self) -> "GaussianState":
        """The same values without history."""
        return replace(self, **{f.name: getattr(self, f.name).detach() for f in fields(self)})

    def to(self, device: torch.device | str) -> "GaussianState":
        """Move every tensor to `device`."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})
