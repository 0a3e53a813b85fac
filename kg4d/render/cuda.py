"""The renderer on CUDA: gsplat 1.5.3 behind our protocol."""

from dataclasses import dataclass

import torch
from gsplat import rasterization
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import Contributors, RasterOptions, RenderOutput
from kg4d.render.blending import Splats, contributors_at
from kg4d.render.inputs import check_inputs


@dataclass(frozen=True)
class _Handle:
    """What gsplat computed on the way, for contributor look-ups."""

    means2d: Float[Tensor, "C N 2"]
    conics: Float[Tensor, "C N 3"]
    opacities: Float[Tensor, "C N"]
    depths: Float[Tensor, "C N"]
    radii: Int[Tensor, "C N 2"]
    size: tuple[int, int]

    def splats(self, camera: int) -> Splats:
        """One camera's splats, front to back."""
        shown = (self.radii[camera] > 0).all(-1).nonzero()[:, 0]
        ids = shown[self.depths[camera, shown].argsort(stable=True)]
        return Splats(ids, *(values[camera, ids] for values in (self.means2d, self.conics, self.opacities)))


class CudaRenderer:
    """gsplat on one NVIDIA GPU. NaN and Inf are not looked for: that would wait for the GPU in every call."""

    name = "cuda"

    def __init__(self, device: torch.device | str = "cuda") -> None:
        self.device = torch.device(device)

    def __call__(
        self,
        gaussians: GaussianState,
        cameras: Cameras,
        *,
        features: Float[Tensor, "N D"] | Float[Tensor, "C N D"] | None = None,
        background: Float[Tensor, " D"] | Float[Tensor, "C D"] | None = None,
        depth: bool = False,
        absgrad: bool = False,
        options: RasterOptions = RasterOptions(),
    ) -> RenderOutput:
        """See `kg4d.render.base.Renderer`."""
        inputs = check_inputs(gaussians, cameras, features, background, options, device=self.device)
        if len(gaussians) == 0:
            return _empty(gaussians, cameras, inputs.features.shape[-1], inputs.background, depth)
        image, alpha, info = rasterization(
            *(gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, inputs.features),
            *(cameras.viewmats, cameras.Ks, cameras.width, cameras.height),
            near_plane=options.near,
            far_plane=options.far,
            radius_clip=options.radius_clip,
            eps2d=options.eps2d,
            packed=False,
            backgrounds=inputs.background,
            render_mode="RGB+ED" if depth else "RGB",
            absgrad=absgrad,
            rasterize_mode="antialiased" if options.antialiased else "classic",
        )
        means2d = info["means2d"]
        if means2d.requires_grad:
            means2d.retain_grad()
        fields = {name: info[name].detach() for name in ("means2d", "conics", "opacities", "depths", "radii")}
        handle = _Handle(**fields, size=(cameras.width, cameras.height))
        expected = image[..., -1:] if depth else None
        return RenderOutput(image[..., :-1] if depth else image, alpha, expected, means2d, info["radii"], handle)

    def contributors(
        self, output: RenderOutput, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
    ) -> Contributors:
        """See `kg4d.render.base.Renderer`."""
        if not isinstance(output.handle, _Handle):
            raise ValueError("this output comes from another renderer")
        handle = output.handle
        splats = [handle.splats(camera) for camera in range(len(handle.means2d))]
        return contributors_at(splats, handle.size, camera_ids, pixels.detach(), k)


def _empty(
    gaussians: GaussianState, cameras: Cameras, channels: int, background: Tensor | None, depth: bool
) -> RenderOutput:
    """What no Gaussian at all looks like; gsplat cannot draw that."""
    c, new = len(cameras), gaussians.means.new_zeros
    alpha = new(c, cameras.height, cameras.width, 1)
    image = alpha.expand(-1, -1, -1, channels)
    image = image.clone() if background is None else image + background[:, None, None]
    means2d, radii = new(c, 0, 2), new(c, 0, 2, dtype=torch.int32)
    handle = _Handle(means2d, new(c, 0, 3), new(c, 0), new(c, 0), radii, (cameras.width, cameras.height))
    return RenderOutput(image, alpha, alpha.clone() if depth else None, means2d, radii, handle)
