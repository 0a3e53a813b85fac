"""Alpha blending of splats at given pixels in plain torch: the rules that all renderers share, and contributors."""

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
    """Projected Gaussians of one camera, front to back; culled ones are left out."""

    ids: Int[Tensor, " n"]
    means2d: Float[Tensor, "n 2"]  # px
    conics: Float[Tensor, "n 3"]  # inverse covariance (xx, xy, yy), px⁻²
    opacities: Float[Tensor, " n"]


class Weights(NamedTuple):
    """How much each splat counts at each pixel."""

    weights: Float[Tensor, "P n"]  # T_i alpha_i
    transmittance: Float[Tensor, " P"]  # what is left behind the last splat


def blend_weights(pixels: Float[Tensor, "P 2"], means2d: Float[Tensor, "P n 2"], splats: Splats) -> Weights:
    """Blending weights T_i alpha_i of n splats at P pixel centres (Kerbl et al. 2023, eq. 3).

    Args:
        pixels: Pixel centres, px.
        means2d: Centres of the splats, px, once per pixel: so their gradients can be had per pixel.
        splats: Front to back; its own `means2d` are not read.
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


def contributors_at(
    splats: list[Splats],
    size: tuple[int, int],
    camera_ids: Int[Tensor, " P"],
    pixels: Float[Tensor, "P 2"],
    k: int,
) -> Contributors:
    """The heaviest `k` splats of each pixel; what `Renderer.contributors` asks for.

    Args:
        splats: Of each camera, front to back.
        size: Width and height of the images, px.
        camera_ids: For each of P points, the index of its camera.
        pixels: The points (x right, y down), px; outside the image there are no contributors.
        k: How many are wanted, >= 1.
    """
    check_query(camera_ids, pixels, k)
    ids = torch.full((len(pixels), k), -1, dtype=torch.int64, device=pixels.device)
    weights = torch.zeros(len(pixels), k, dtype=pixels.dtype, device=pixels.device)
    corner = pixels.floor()
    inside = ((corner >= 0) & (corner < corner.new_tensor(size))).all(-1)
    for camera, seen in enumerate(splats):
        count = min(k, len(seen.ids))
        asked, at_once = (inside & (camera_ids == camera)).nonzero()[:, 0], _MOST_WEIGHTS // (len(seen.ids) + 1) + 1
        for rows in torch.split(asked, at_once):
            means2d = seen.means2d.expand(len(rows), -1, -1)
            heavy = blend_weights(corner[rows] + 0.5, means2d, seen).weights.sort(dim=1, descending=True, stable=True)
            weights[rows, :count] = heavy.values[:, :count]
            found = seen.ids[heavy.indices[:, :count]]
            ids[rows, :count] = torch.where(heavy.values[:, :count] > 0, found, -1)
    return Contributors(ids, weights)
