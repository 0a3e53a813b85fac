"""The renderer on CUDA: gsplat 1.5.3 behind our protocol."""

from dataclasses import dataclass, replace

import torch
from gsplat import rasterization
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import Contributors, RasterOptions, RenderOutput
from kg4d.render.blending import Splats, contributors_at
from kg4d.render.inputs import check_inputs
from kg4d.render.reference import ReferenceRenderer

_CHUNK = 32  # channels that gsplat draws in one pass


def gsplat_missing_reason() -> str | None:
    """None where gsplat's kernels can be used, else one sentence that says why not and what to do.

    gsplat builds them when it is first asked for them, which takes minutes.
    """
    try:
        from gsplat.cuda import _backend
    except (ImportError, OSError, RuntimeError) as error:
        what = next(iter(str(error).splitlines()), type(error).__name__)
        return f"gsplat's CUDA kernels cannot be built ({what}); use renderer.kind=cpu"
    if _backend._C is None:  # gsplat only prints a line, and fails at the first render
        return "gsplat finds no CUDA toolkit (nvcc) to build its kernels with: install one, or use renderer.kind=cpu"
    return None


@dataclass(frozen=True)
class _CudaHandle:
    """Intermediate results of gsplat, kept for contributor look-ups."""

    means2d: Float[Tensor, "C N 2"]
    conics: Float[Tensor, "C N 3"]
    opacities: Float[Tensor, "C N"]
    depths: Float[Tensor, "C N"]
    radii: Int[Tensor, "C N 2"]
    size: tuple[int, int]

    @staticmethod
    def empty(radii: Int[Tensor, "C 0 2"], size: tuple[int, int]) -> "_CudaHandle":
        """The handle of a render without Gaussians."""
        pairs = radii.float()
        return _CudaHandle(pairs, pairs[..., [0, 0, 1]], pairs[..., 0], pairs[..., 0], radii, size)

    def splats(self, camera: int) -> Splats:
        """One camera's splats, front to back."""
        shown = (self.radii[camera] > 0).all(-1).nonzero()[:, 0]
        ids = shown[self.depths[camera, shown].argsort(stable=True)]
        return Splats(ids, *(values[camera, ids] for values in (self.means2d, self.conics, self.opacities)))


class CudaRenderer:
    """gsplat on one NVIDIA GPU. It does not check for NaN and Inf: each call would wait for the GPU."""

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
        if len(gaussians) == 0:  # gsplat would divide by their number
            empty = ReferenceRenderer(self.device)(
                gaussians, cameras, features=features, background=background, depth=depth, options=options
            )
            return replace(empty, handle=_CudaHandle.empty(empty.radii, (cameras.width, cameras.height)))
        channels = inputs.features.shape[-1] + depth
        # Each chunk of channels would overwrite `absgrad`. One chunk with all needs more shared memory: smaller tiles.
        one_chunk = absgrad and channels > _CHUNK
        _check_counts(gaussians, cameras, channels if one_chunk else min(channels, _CHUNK))
        image, alpha, info = rasterization(
            *(gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, inputs.features),
            *(cameras.viewmats, cameras.Ks, cameras.width, cameras.height),
            near_plane=options.near,
            far_plane=options.far,
            radius_clip=options.radius_clip,
            eps2d=options.eps2d,
            packed=False,
            tile_size=8 if one_chunk else 16,
            backgrounds=inputs.background,
            render_mode="RGB+ED" if depth else "RGB",
            absgrad=absgrad,
            rasterize_mode="antialiased" if options.antialiased else "classic",
            channel_chunk=channels if one_chunk else _CHUNK,
        )
        means2d = info["means2d"]
        if means2d.requires_grad:
            means2d.retain_grad()
        fields = {name: info[name].detach() for name in ("means2d", "conics", "opacities", "depths", "radii")}
        handle = _CudaHandle(**fields, size=(cameras.width, cameras.height))
        expected = image[..., -1:] if depth else None
        image = image[..., :-1] if depth else image
        return RenderOutput(image, alpha, expected, means2d, info["radii"], options, handle)

    def contributors(
        self, output: RenderOutput, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
    ) -> Contributors:
        """See `kg4d.render.base.Renderer`."""
        if not isinstance(output.handle, _CudaHandle):
            raise ValueError("this output comes from another renderer")
        handle = output.handle
        splats = [handle.splats(camera) for camera in range(len(handle.means2d))]
        return contributors_at(splats, handle.size, camera_ids, pixels.detach(), k)


def _check_counts(gaussians: GaussianState, cameras: Cameras, channels: int) -> None:
    """Raise ValueError where gsplat's unchecked 32-bit indices would overflow and reach memory that is not its own."""
    most = max(len(gaussians), cameras.width * cameras.height) * len(cameras)
    if most * max(3, channels) >= 1 << 31:
        raise ValueError(
            f"too much for one call of gsplat: {len(gaussians)} Gaussians, {len(cameras)} cameras of "
            f"{cameras.width}x{cameras.height} px, {channels} channels; draw fewer cameras at a time"
        )
