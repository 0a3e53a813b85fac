"""A stand-in for gsplat on a CPU: the calling convention of its `rasterization`, drawn by our plain renderer."""

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import kg4d.render
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render import reference
from kg4d.render.base import RasterOptions


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
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
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Arguments, defaults, results and weak points of gsplat 1.5.3's function of that name, as far as we use them."""
    if means.dim() == 3:  # a batch: every tensor has its axis in front
        per_batch = (means, quats, scales, opacities, colors, viewmats, Ks)
        behind = [None] * len(means) if backgrounds is None else list(backgrounds)
        drawn = [
            rasterization(
                *parts,
                *(width, height, near_plane, far_plane, radius_clip, eps2d, sh_degree, packed, tile_size, background),
                *(render_mode, sparse_grad, absgrad, rasterize_mode, channel_chunk),
            )
            for *parts, background in zip(*per_batch, behind, strict=True)
        ]
        images, alphas, infos = zip(*drawn, strict=True)
        joined = {name: torch.stack([info[name] for info in infos]) for name in infos[0]}
        return torch.stack(images), torch.stack(alphas), joined
    assert not packed, "packed results have other shapes"
    assert len(means) > 0, "gsplat divides by the number of Gaussians"
    depth = {"RGB": False, "RGB+ED": True}[render_mode]
    assert not absgrad or colors.shape[-1] + depth <= channel_chunk, "each chunk of channels overwrites absgrad"
    assert backgrounds is None or backgrounds.shape == (len(viewmats), colors.shape[-1])
    gaussians = GaussianState(means, quats, scales, opacities, means.new_zeros(len(means), 3), means[:, :0])
    cameras = Cameras(viewmats, Ks, width, height)
    antialiased = {"classic": False, "antialiased": True}[rasterize_mode]
    options = RasterOptions(eps2d, near_plane, far_plane, radius_clip, antialiased)
    output = reference.ReferenceRenderer(means.device)(
        gaussians, cameras, features=colors, background=backgrounds, depth=depth, absgrad=absgrad, options=options
    )
    image = output.image if output.depth is None else torch.cat([output.image, output.depth], dim=-1)
    projected = reference._project(gaussians, cameras, options)
    culled = (projected.radii == 0).all(-1)
    info: dict[str, Tensor] = {
        "means2d": output.means2d,
        "radii": output.radii,
        "opacities": projected.opacities,
        # of culled Gaussians gsplat writes neither: what lay in that memory is still there
        "conics": projected.conics.masked_fill(culled[..., None], float("nan")),
        "depths": projected.depths.masked_fill(culled, float("nan")),
    }
    return image, output.alpha, info


def use_instead_of_gsplat(patch: pytest.MonkeyPatch, rasterization: Callable[..., Any]) -> ModuleType:
    """`kg4d.render.cuda` as it is with this function in the place of gsplat's, for the length of a test."""
    module, backend = ModuleType("gsplat"), SimpleNamespace(_backend=SimpleNamespace(_C=object()))
    module.__spec__ = importlib.util.spec_from_loader("gsplat", loader=None)
    module.rasterization = rasterization  # type: ignore[attr-defined]
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
