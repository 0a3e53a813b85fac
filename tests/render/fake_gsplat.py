"""A stand-in for gsplat on a CPU: its `rasterization` with the projection of its own torch code.

That code has no blending without CUDA, and culls by depth alone. Both follow the kernels here: `_cull` the end of
`ProjectionEWA3DGSFused.cu`, `_blend` the inner loop of `RasterizeToPixels3DGSFwd.cu`. Nothing of our renderers is used,
so that a convention of gsplat's that all of ours miss would show. It computes in float64, for in float32 gsplat's torch
code loses the digits of thin Gaussians.
"""

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import kg4d.render

torch_impl = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed")


class Projected(NamedTuple):
    """What gsplat's kernels know of C x N splats."""

    means2d: Tensor
    conics: Tensor
    depths: Tensor
    opacities: Tensor
    radii: Tensor


def rasterization(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    covars: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Arguments, defaults, results and weak points of gsplat 1.5.3's function of that name, as far as we use them."""
    if means.dim() == 3:  # a batch: every tensor has its axis in front
        none = [None] * len(means)
        shapes = (none if part is None else part for part in (quats, scales))
        per_batch = (means, *shapes, opacities, colors, viewmats, Ks)
        behind = none if backgrounds is None else list(backgrounds)
        given = none if covars is None else list(covars)
        drawn = [
            rasterization(
                *parts,
                *(width, height, near_plane, far_plane, radius_clip, eps2d, sh_degree, packed, tile_size, background),
                *(render_mode, sparse_grad, absgrad, rasterize_mode, channel_chunk, covar),
            )
            for *parts, background, covar in zip(*per_batch, behind, given, strict=True)
        ]
        images, alphas, infos = zip(*drawn, strict=True)
        joined = {name: torch.stack([info[name] for info in infos]) for name in infos[0]}
        return torch.stack(images), torch.stack(alphas), joined
    assert not packed, "packed results have other shapes"
    assert len(means) > 0, "gsplat divides by the number of Gaussians"
    depth = {"RGB": False, "RGB+ED": True}[render_mode]
    assert not absgrad or colors.shape[-1] + depth <= channel_chunk, "each chunk of channels overwrites absgrad"
    assert backgrounds is None or backgrounds.shape == (len(viewmats), colors.shape[-1])
    means, opacities, colors = (t.double() for t in (means, opacities, colors))
    viewmats, Ks = viewmats.double(), Ks.double()
    if covars is None:
        assert quats is not None
        assert scales is not None
        covars, _ = torch_impl._quat_scale_to_covar_preci(quats.double(), scales.double(), compute_preci=False)
    _, means2d, depths, conics, compensations = torch_impl._fully_fused_projection(
        *(means, covars.double(), viewmats, Ks, width, height, eps2d, near_plane, far_plane),
        calc_compensations={"classic": False, "antialiased": True}[rasterize_mode],
    )
    means2d = means2d.float()  # what the caller gets, and takes gradients of
    opacities = opacities.expand_as(depths) if compensations is None else opacities * compensations
    radii = _cull(Projected(means2d, conics, depths, opacities, means2d), (width, height), near_plane, far_plane)
    radii[(radii <= radius_clip).all(-1)] = 0
    splats = Projected(means2d, conics, depths, opacities, radii)
    if absgrad:
        means2d.absgrad = torch.zeros_like(means2d)
    images, alphas = [], []
    for camera in range(len(viewmats)):
        own = colors[camera] if colors.dim() == 3 else colors
        channels = torch.cat([own, depths[camera][:, None]], dim=-1) if depth else own
        image, left = _blend(splats, camera, channels, (width, height), absgrad)
        if backgrounds is not None:
            shown = backgrounds[camera].double()
            image = image + left * (torch.cat([shown, shown.new_zeros(1)]) if depth else shown)
        images.append(image)
        alphas.append(1 - left)
    image, alpha = torch.stack(images), torch.stack(alphas)
    if depth:
        image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp(min=1e-10)], dim=-1)
    culled = (radii == 0).all(-1)
    info: dict[str, Tensor] = {
        "means2d": means2d,
        "radii": radii,
        "opacities": opacities.float(),
        # of culled Gaussians gsplat writes neither: what lay in that memory is still there
        "conics": conics.masked_fill(culled[..., None], float("nan")).float(),
        "depths": depths.masked_fill(culled, float("nan")).float(),
    }
    return image.float(), alpha.float(), info


@torch.no_grad()
def _cull(splats: Projected, size: tuple[int, int], near: float, far: float) -> Tensor:
    """Half sides of the box of each splat, px, as large as its opacity needs; 0 where it is not drawn."""
    xx, xy, yy = splats.conics.unbind(-1)
    variances = torch.stack([yy, xx], dim=-1) / (xx * yy - xy * xy)[..., None]
    extent = (2 * (255 * splats.opacities).log()).clamp_min(0).sqrt().clamp_max(3.33)
    radii = torch.ceil(extent[..., None] * variances.sqrt())
    inside = (splats.means2d + radii > 0) & (splats.means2d - radii < torch.tensor(size))
    drawn = inside.all(-1) & (splats.depths >= near) & (splats.depths <= far) & (splats.opacities >= 1 / 255)
    return torch.where(drawn[..., None], radii, 0.0).int()


def _blend(
    splats: Projected, camera: int, channels: Tensor, size: tuple[int, int], absgrad: bool
) -> tuple[Tensor, Tensor]:
    """One image, splat after splat from front to back, and what is left of the light behind it, (H, W, 1)."""
    x, y = (axis.to(channels) + 0.5 for axis in torch.meshgrid(*map(torch.arange, size), indexing="xy"))
    image, left = x.new_zeros(*x.shape, channels.shape[-1]), x.new_ones(*x.shape, 1)
    done = left < 0
    shown = (splats.radii[camera] > 0).all(-1).nonzero()[:, 0]
    for i in shown[splats.depths[camera, shown].argsort(stable=True)].tolist():
        center = splats.means2d[camera, i].to(x).expand(*x.shape, 2)
        if absgrad and center.requires_grad:
            center.register_hook(partial(_add_absolute, splats.means2d.absgrad[camera, i]))
        dx, dy = center[..., 0] - x, center[..., 1] - y
        xx, xy, yy = splats.conics[camera, i]
        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        alpha = (splats.opacities[camera, i] * torch.exp(-sigma)).clamp_max(0.999)[..., None]
        alpha = torch.where((sigma[..., None] < 0) | (alpha < 1 / 255), 0.0, alpha)
        done = done | (left * (1 - alpha) <= 1e-4)
        alpha = torch.where(done, 0.0, alpha)
        image = image + alpha * left * channels[i]
        left = left * (1 - alpha)
    return image, left


def _add_absolute(total: Tensor, gradient: Tensor) -> None:
    total.add_(gradient.abs().sum((0, 1)))


def use_instead_of_gsplat(patch: pytest.MonkeyPatch, rasterization: Callable[..., Any]) -> ModuleType:
    """`kg4d.render.cuda` as it is with this function in the place of gsplat's, for the length of a test."""
    module, backend = ModuleType("gsplat"), SimpleNamespace(_backend=SimpleNamespace(_C=object()))
    module.__spec__ = importlib.util.spec_from_loader("gsplat", loader=None)
    module.rasterization = rasterization  # type: ignore[attr-defined]
    module.spherical_harmonics = torch_impl._spherical_harmonics  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "gsplat", module)
    patch.setitem(sys.modules, "gsplat.cuda", backend)
    spec = importlib.util.find_spec("kg4d.render.cuda")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, spec.name, loaded)
    patch.setattr(kg4d.render, "cuda", loaded, raising=False)
    spec.loader.exec_module(loaded)
    return loaded
