"""A stand-in for gsplat on a CPU: the calling convention of its `rasterization`, drawn by our plain renderer."""

import torch
from torch import Tensor

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
) -> tuple[Tensor, Tensor, dict[str, object]]:
    """Arguments, defaults, results and weak points of gsplat 1.5.3's function of that name, as far as we use them."""
    assert not packed, "packed results have other shapes"
    assert len(means) > 0, "gsplat divides by the number of Gaussians"
    depth = {"RGB": False, "RGB+ED": True}[render_mode]
    assert not absgrad or colors.shape[-1] + depth <= channel_chunk, "each chunk of channels overwrites absgrad"
    assert backgrounds is None or backgrounds.shape == (len(viewmats), colors.shape[-1])
    gaussians = GaussianState(means, quats, scales, opacities, means.new_zeros(len(means), 3), means[:, :0])
    cameras = Cameras(viewmats, Ks, width, height)
    antialiased = {"classic": False, "antialiased": True}[rasterize_mode]
    options = RasterOptions(eps2d, near_plane, far_plane, radius_clip, antialiased)
    drawn = reference.ReferenceRenderer(means.device)(
        gaussians, cameras, features=colors, background=backgrounds, depth=depth, absgrad=absgrad, options=options
    )
    image = drawn.image if drawn.depth is None else torch.cat([drawn.image, drawn.depth], dim=-1)
    projected = reference._project(gaussians, cameras, options)
    culled = (projected.radii == 0).all(-1)
    info: dict[str, object] = {
        "means2d": drawn.means2d,
        "radii": drawn.radii,
        "opacities": projected.opacities,
        # of culled Gaussians gsplat writes neither: what lay in that memory is still there
        "conics": projected.conics.masked_fill(culled[..., None], float("nan")),
        "depths": projected.depths.masked_fill(culled, float("nan")),
    }
    return image, drawn.alpha, info
