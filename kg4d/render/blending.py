"""Alpha blending of splats at given pixels in plain torch: the rules that all renderers share, and contributors."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.render.base import Contributors
from kg4d.render.inputs import check_query

MIN_ALPHA = 1 / 255  # fainter is not drawn
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4  # a splat that would leave no more than this ends the pixel and is not drawn
_MOST_WEIGHTS = 1 << 22  # pixels times splats whose weights a look-up holds at once


class Splats(NamedTuple):
    """Projected Gaussians of one camera or of several, front to back."""

    ids: Int[Tensor, "*C n"]
    means2d: Float[Tensor, "*C n 2"]  # px
    conics: Float[Tensor, "*C n 3"]  # inverse covariance (xx, xy, yy), px⁻²
    opacities: Float[Tensor, "*C n"]


class Weights(NamedTuple):
    """How much each splat counts at each pixel."""

    weights: Float[Tensor, "P n"]  # T_i alpha_i
    transmittance: Float[Tensor, " P"]  # what is left behind the last splat


def blend_weights(pixels: Float[Tensor, "P 2"], means2d: Float[Tensor, "P n 2"], splats: Splats) -> Weights:
    """Blending weights T_i alpha_i of n splats at P pixel centres (Kerbl et al. 2023, eq. 3).

    Args:
        pixels: Pixel centres, px.
        means2d: Centres of the splats, px, once per pixel: so their gradients can be had per pixel.
        splats: Of one camera for all pixels, or of P cameras, one for each; its own `means2d` are not read.
    """
    offset = means2d - pixels[:, None]
    dx, dy = offset.unbind(-1)
    xx, xy, yy = splats.conics.unbind(-1)
    raw = splats.opacities * torch.exp(-0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy)
    alpha = torch.where(raw > MAX_ALPHA, MAX_ALPHA, torch.where(raw < MIN_ALPHA, 0.0, raw))
    drawn = torch.cumprod(1 - alpha, dim=1) > MIN_TRANSMITTANCE
    alpha = torch.where(drawn, alpha, 0.0)
    behind = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([alpha.new_ones(len(alpha), 1), behind], dim=1)
    return Weights(alpha * before[:, :-1], before[:, -1])


@dataclass(frozen=True)
class Projections:
    """N Gaussians in C cameras: what a renderer keeps of a render for look-ups.

    Attributes:
        means2d: Centres, px.
        conics: Inverse covariances (xx, xy, yy), px⁻².
        opacities: With the compensation of antialiasing, where it is on.
        depths: z in camera space, world units.
        radii: Half extents, px; (0, 0) means culled, and then the other fields may hold anything.
        size: Width and height of the images, px.
    """

    means2d: Float[Tensor, "C N 2"]
    conics: Float[Tensor, "C N 3"]
    opacities: Float[Tensor, "C N"]
    depths: Float[Tensor, "C N"]
    radii: Int[Tensor, "C N 2"]
    size: tuple[int, int]

    def detach(self) -> "Projections":
        """The same without history."""
        return Projections(
            self.means2d.detach(),
            self.conics.detach(),
            self.opacities.detach(),
            self.depths.detach(),
            self.radii.detach(),
            self.size,
        )

    def front_to_back(self) -> Splats:
        """The splats of every camera, with an axis for the cameras; the culled ones come last and are transparent."""
        shown = (self.radii > 0).all(-1)
        ids = self.depths.where(shown, torch.inf).argsort(dim=-1, stable=True)
        shown = shown.gather(1, ids)

        def sorted_by_depth(values: Tensor) -> Tensor:
            return values.gather(1, ids[..., None].expand_as(values)).where(shown[..., None], 0.0)

        means2d, conics = sorted_by_depth(self.means2d), sorted_by_depth(self.conics)
        return Splats(ids, means2d, conics, sorted_by_depth(self.opacities[..., None])[..., 0])


def contributors_at(
    projections: Projections, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
) -> Contributors:
    """The heaviest `k` Gaussians of each pixel; what `Renderer.contributors` asks for.

    Nothing here waits for a GPU: every pixel looks at all Gaussians of its camera.

    Args:
        projections: Of the render.
        camera_ids: For each of P points, the index of its camera.
        pixels: The points (x right, y down), px; outside the image there are no contributors.
        k: How many are wanted, >= 1.
    """
    check_query(camera_ids, pixels, k)
    ids = torch.full((len(pixels), k), -1, dtype=torch.int64, device=pixels.device)
    weights = torch.zeros(len(pixels), k, dtype=pixels.dtype, device=pixels.device)
    splats = projections.front_to_back()
    count = splats.ids.shape[1]
    known = min(k, count)
    corner, (width, height) = pixels.floor(), projections.size
    x, y = corner.unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    at_once = _MOST_WEIGHTS // (count + 1) + 1
    for start in range(0, len(pixels) if known else 0, at_once):
        rows = slice(start, start + at_once)
        seen = Splats(*(values.index_select(0, camera_ids[rows]) for values in splats))
        found = blend_weights(corner[rows] + 0.5, seen.means2d, seen).weights
        heavy = found.sort(dim=1, descending=True, stable=True)
        drawn = inside[rows, None] & (heavy.values[:, :known] > 0)
        weights[rows, :known] = heavy.values[:, :known].where(drawn, 0.0)
        ids[rows, :known] = seen.ids.gather(1, heavy.indices[:, :known]).where(drawn, -1)
    return Contributors(ids, weights)
