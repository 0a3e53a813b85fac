"""gsplat's own torch implementation, made to run on a CPU.

Projection and compositing are gsplat's (`gsplat.cuda._torch_impl`). What it needs from CUDA or from the nerfacc package
is supplied here in vectorised torch: the tile intersections (gsplat's own is a Python double loop, far slower), which
pixels each Gaussian touches, and the per-ray products and sums. So the figures flatter gsplat.
"""

import sys
import types

import torch
from gsplat.cuda import _torch_impl, _wrapper
from torch import Tensor

from benchmarks._harness import BenchmarkScene

_TILE = 16


def render(scene: BenchmarkScene) -> Tensor:
    """The scene through gsplat's torch code; (1, H, W, D)."""
    g, cameras = scene.gaussians, scene.cameras
    size = cameras.width, cameras.height
    covars, _ = _torch_impl._quat_scale_to_covar_preci(g.quats, g.scales, True, False)
    radii, means2d, depths, conics, _ = _torch_impl._fully_fused_projection(
        g.means, covars, cameras.viewmats, cameras.Ks, *size
    )
    tiles = (size[0] + _TILE - 1) // _TILE, (size[1] + _TILE - 1) // _TILE
    tile_ids, flatten_ids = _intersections(means2d[0].detach(), radii[0], depths[0].detach(), tiles)
    offsets = torch.searchsorted(tile_ids, torch.arange(tiles[0] * tiles[1])).reshape(1, tiles[1], tiles[0])
    image, _ = _torch_impl._rasterize_to_pixels(
        means2d,
        conics,
        scene.features[None],
        g.opacities[None],
        *size,
        _TILE,
        offsets,
        flatten_ids,
        batch_per_iter=10**6,
    )
    return image


def _intersections(means2d: Tensor, radii: Tensor, depths: Tensor, tiles: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Tile and Gaussian of each intersection, by tile, then by depth."""
    limit = torch.tensor(tiles)
    low = ((means2d - radii) / _TILE).floor().long().clamp_min(0).minimum(limit)
    high = ((means2d + radii) / _TILE).ceil().long().clamp_min(0).minimum(limit)
    span = torch.where((radii > 0).all(-1, keepdim=True), high - low, 0)
    count = span.prod(-1)
    ids = torch.repeat_interleave(torch.arange(len(count)), count)
    nth = torch.arange(len(ids)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    tile = (low[ids, 1] + nth // span[ids, 0]) * tiles[0] + low[ids, 0] + nth % span[ids, 0]
    order = depths[ids].argsort(stable=True)
    order = order[tile[order].argsort(stable=True)]
    return tile[order], ids[order]


@torch.no_grad()
def _indices_in_range(*arguments: object) -> tuple[Tensor, Tensor, Tensor]:
    """Stand-in for the CUDA kernel: Gaussian, pixel and image of each visible contribution, front to back per pixel."""
    _, _, _, means2d, conics, opacities, width, height, tile_size, offsets, flatten_ids = arguments
    starts = offsets.flatten()
    tile = torch.searchsorted(starts, torch.arange(len(flatten_ids)), right=True) - 1
    inner = torch.arange(tile_size * tile_size)
    found = []
    for part in torch.arange(len(flatten_ids)).split(8192):
        ids, own = flatten_ids[part], tile[part]
        x = own[:, None] % offsets.shape[2] * tile_size + inner % tile_size
        y = own[:, None] // offsets.shape[2] * tile_size + inner // tile_size
        dx, dy = x + 0.5 - means2d[0, ids, 0, None], y + 0.5 - means2d[0, ids, 1, None]
        a, b, c = (conics[0, ids, i, None] for i in range(3))
        alpha = opacities[0, ids, None] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
        row, column = ((alpha >= 1 / 255) & (x < width) & (y < height)).nonzero(as_tuple=True)
        pixel = y[row, column] * width + x[row, column]
        found.append((ids[row], pixel, alpha[row, column].clamp_max(0.999)))
    ids, pixel, alpha = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = pixel.argsort(stable=True)
    ids, pixel, alpha = ids[order], pixel[order], alpha[order]
    seen = _transmittance(alpha, pixel, width * height) * (1 - alpha) > 1e-4
    return ids[seen], pixel[seen], torch.zeros_like(ids[seen])


def _transmittance(alphas: Tensor, rays: Tensor, count: int) -> Tensor:
    """What is left of each ray before each of its samples; samples are sorted by ray."""
    log = torch.log1p(-alphas.double())
    before = log.cumsum(0) - log
    first = torch.searchsorted(rays, torch.arange(count))
    return torch.exp(before - before[first[rays]]).to(alphas.dtype)


def _weights(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    transmittance = _transmittance(alphas, ray_indices, n_rays)
    return transmittance * alphas, transmittance


def _accumulate(weights: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int) -> Tensor:
    source = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, source.shape[-1]).index_add(0, ray_indices, source)


_wrapper.rasterize_to_indices_in_range = _indices_in_range
_nerfacc = types.ModuleType("nerfacc")
_nerfacc.render_weight_from_alpha = _weights  # type: ignore[attr-defined]
_nerfacc.accumulate_along_rays = _accumulate  # type: ignore[attr-defined]
sys.modules["nerfacc"] = _nerfacc
