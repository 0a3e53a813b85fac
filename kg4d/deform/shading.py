"""Light that stays where it is while the surface turns under it.

The colours of the Gaussians are those of frame 0, light included. What comes from all around, as a lamp, the sky and
the ground do together, is a smooth function of the way a matt surface looks; so where a Gaussian turns, its colour
changes by the ratio of the light after to the light before. Nine numbers say all of that light that matters to first
order, and they are found with the motion: turns that change the shading as the video shows it are the likelier ones.
A matt surface sends its light in all directions alike: harmonics, which depend on the direction of sight, stay as they
are.

Source: Ramamoorthi and Hanrahan 2001, "An efficient representation for irradiance environment maps", to first order.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.gaussians.state import GaussianState
from kg4d.geometry.normals import outward_normals
from kg4d.geometry.rotations import quat_rotate

_DARKEST = 0.15  # of the mean light: no surface gets less


class Shading(nn.Module):
    """Factors on the colours of Gaussians that have turned.

    Attributes:
        light: By how much a surface is brighter than the mean when it looks along each world axis, for each colour.
    """

    def __init__(self, width: float) -> None:
        """The same light from everywhere.

        Args:
            width: Of the window in which the surface's direction is found, world units.

        Raises:
            ValueError: It is not positive.
        """
        super().__init__()
        if width <= 0:
            raise ValueError(f"shading needs a window that is positive, not {width}")
        self._width = width
        self.light = nn.Parameter(torch.zeros(3, 3))
        self._found: tuple[Tensor, int, Tensor] | None = None

    def forward(self, canonical: GaussianState, turns: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N 3"]:
        """Factors that are 1 where nothing has turned.

        Args:
            canonical: The Gaussians as their colours are lit.
            turns: Unit quaternions: how the surroundings of each have turned since.
        """
        normals = self._normals(canonical)
        return self._lit(quat_rotate(turns, normals)) / self._lit(normals)

    def _lit(self, normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        return (1 + normals @ self.light).clamp_min(_DARKEST)

    def _normals(self, canonical: GaussianState) -> Float[Tensor, "N 3"]:
        """Found once for the same centres."""
        means = canonical.means
        if self._found is None or self._found[0] is not means or self._found[1] != means._version:
            normals = outward_normals(means, canonical.opacities, self._width)
            self._found = (means, means._version, normals)
        return self._found[2]
