"""The renderer on CUDA: gsplat 1.5.3 behind our protocol."""

import functools
import os
import sysconfig
from dataclasses import dataclass
from typing import NamedTuple

import torch
from filelock import FileLock
from gsplat import rasterization, spherical_harmonics
from jaxtyping import Float, Int
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.covariances import unpacked
from kg4d.geometry.degrees import harmonics_degree
from kg4d.geometry.harmonics import rgb_to_sh0
from kg4d.render.base import Contributors, RasterOptions, RenderOutput
from kg4d.render.blending import Projections, contributors_at
from kg4d.render.frames import Frames, check_frames
from kg4d.render.inputs import check_inputs
from kg4d.render.reference import ReferenceRenderer
from kg4d.utils.files import cache_folder

_CHUNK = 32  # channels that gsplat draws in one pass
_KEPT = ("means2d", "conics", "opacities", "depths", "radii")  # of its intermediate results


@functools.cache  # a second attempt would fail for another reason, which hides the first
def gsplat_missing_reason() -> str | None:
    """None where gsplat's kernels can be used, else one sentence that says why not and what to do.

    gsplat builds them when it is first asked for them, which takes minutes. Other processes wait for that: gsplat
    removes a build folder that it takes for abandoned.
    """
    scripts = sysconfig.get_path("scripts")
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):  # torch looks for `ninja` there, at every load
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    lock = cache_folder() / "gsplat-build.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            from gsplat.cuda import _backend
    except Exception as error:  # compilers, linkers and torch's loader raise many kinds
        what = next(iter(str(error).splitlines()), type(error).__name__)
        return f"gsplat's CUDA kernels cannot be built ({what}); use renderer.kind=cpu"
    if _backend._C is None:  # gsplat only prints a line, and fails at the first render
        return "gsplat finds no CUDA toolkit (nvcc) to build its kernels with: install one, or use renderer.kind=cpu"
    return None


class CudaRenderer:
    """gsplat on one NVIDIA GPU. It does not check for NaN and Inf: each call would wait for the GPU."""

    name = "cuda"
    reason = "asked for"
    options = RasterOptions()

    def __init__(self, device: torch.device | str) -> None:
        """Draw on `device`, which has its number: `cuda:0`."""
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
        options: RasterOptions | None = None,
    ) -> RenderOutput:
        """See `kg4d.render.base.Renderer`."""
        options = options or self.options
        inputs = check_inputs(gaussians, cameras, features, background, options, device=self.device)
        if len(gaussians) == 0:  # gsplat would divide by their number
            return ReferenceRenderer(self.device)(
                gaussians, cameras, features=features, background=background, depth=depth, options=options
            )
        shape = _Shape.of(gaussians, gaussians.opacities)
        call = _Call(cameras, depth, absgrad, options)
        shown = _seen(inputs.features, inputs.harmonics, gaussians.means, cameras.centers)
        image, alpha, info = call.draw(shape, shown, inputs.background, cameras.viewmats, cameras.Ks)
        if info["means2d"].requires_grad:
            info["means2d"].retain_grad()
        return call.output(image, alpha, info)

    def frames(
        self,
        gaussians: MovingGaussians,
        cameras: Cameras,
        *,
        features: Float[Tensor, "N D"] | Float[Tensor, "B N D"] | None = None,
        background: Float[Tensor, " D"] | None = None,
        depth: bool = False,
        options: RasterOptions | None = None,
    ) -> RenderOutput:
        """See `kg4d.render.base.Renderer`. All frames are one call of gsplat, whose batch they are."""
        check_frames(gaussians, cameras)
        options = options or self.options
        first, batch = gaussians.at(0), len(cameras)
        own = features[0] if features is not None and features.dim() == 3 else features
        inputs = check_inputs(first, cameras[:1], own, background, options, device=self.device)
        if len(first) == 0:
            return ReferenceRenderer(self.device).frames(
                gaussians, cameras, features=features, background=background, depth=depth, options=options
            )
        if features is None:
            colors = first.colors if gaussians.colors is None else gaussians.colors
            features = _seen(colors, inputs.harmonics, gaussians.means, cameras.centers)
        opacities = first.opacities.expand(batch, -1) if gaussians.opacities is None else gaussians.opacities
        behind = None if background is None else background.expand(batch, 1, -1)
        shape = _Shape.of(gaussians, opacities)
        call, one_each = _Call(cameras, depth, False, options), (cameras.viewmats[:, None], cameras.Ks[:, None])
        image, alpha, info = call.draw(shape, features.expand(batch, -1, -1), behind, *one_each)
        return call.output(image[:, 0], alpha[:, 0], {name: info[name][:, 0].detach() for name in _KEPT})

    def contributors(
        self, output: RenderOutput, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
    ) -> Contributors:
        """See `kg4d.render.base.Renderer`."""
        if isinstance(output.handle, Frames):
            return output.handle.contributors(ReferenceRenderer(self.device), camera_ids, pixels, k)
        if not isinstance(output.handle, Projections):
            raise ValueError("this output comes from another renderer")
        return contributors_at(output.handle, camera_ids, pixels.detach(), k)


class _Shape(NamedTuple):
    """What gsplat draws but for its channels."""

    means: Tensor
    quats: Tensor | None
    scales: Tensor | None
    opacities: Tensor
    covars: Tensor | None

    @classmethod
    def of(cls, gaussians: GaussianState | MovingGaussians, opacities: Tensor) -> "_Shape":
        covariances = gaussians.covariances
        covars = None if covariances is None else unpacked(covariances)
        return cls(gaussians.means, gaussians.quats, gaussians.scales, opacities, covars)


@dataclass(frozen=True)
class _Call:
    """One call of gsplat: what does not depend on whether it has a batch."""

    cameras: Cameras
    depth: bool
    absgrad: bool
    options: RasterOptions

    def draw(
        self,
        shape: _Shape,
        features: Tensor,
        background: Tensor | None,
        viewmats: Tensor,
        Ks: Tensor,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Image, coverage and intermediate results, each with the axes of a batch in front, where there are any.

        Args:
            shape: Centres, shapes and opacities.
            features: (..., N, D), or one set per camera.
            background: (..., C, D).
            viewmats: (..., C, 4, 4).
            Ks: (..., C, 3, 3).
        """
        options, size = self.options, (self.cameras.width, self.cameras.height)
        channels = features.shape[-1] + self.depth
        # Each chunk of channels would overwrite `absgrad`. One chunk with all needs more shared memory: smaller tiles.
        one_chunk = self.absgrad and channels > _CHUNK
        _check_counts(shape.means.shape[-2], self.cameras, channels if one_chunk else min(channels, _CHUNK))
        image, alpha, info = rasterization(
            *(*shape[:4], features, viewmats, Ks, *size),
            covars=shape.covars,
            near_plane=options.near,
            far_plane=options.far,
            radius_clip=options.radius_clip,
            eps2d=options.eps2d,
            packed=False,
            tile_size=8 if one_chunk else 16,
            backgrounds=background,
            render_mode="RGB+ED" if self.depth else "RGB",
            absgrad=self.absgrad,
            rasterize_mode="antialiased" if options.antialiased else "classic",
            channel_chunk=channels if one_chunk else _CHUNK,
        )
        return image, alpha, info

    def output(self, image: Tensor, alpha: Tensor, info: dict[str, Tensor]) -> RenderOutput:
        """What `draw` gave, without a batch."""
        kept = {name: info[name].detach() for name in _KEPT}
        handle = Projections(**kept, size=(self.cameras.width, self.cameras.height))
        expected = image[..., -1:] if self.depth else None
        image = image[..., :-1] if self.depth else image
        return RenderOutput(image, alpha, expected, info["means2d"], info["radii"], self.options, handle)


def _seen(
    colors: Float[Tensor, "N D"] | Float[Tensor, "C N D"],
    harmonics: Float[Tensor, "N H 3"] | None,
    means: Float[Tensor, "N 3"] | Float[Tensor, "C N 3"],
    centers: Float[Tensor, "C 3"],
) -> Tensor:
    """Colours as each camera sees them, (C, N, 3); without harmonics those that are given.

    gsplat's `sh_degree` would invert the cameras' matrices, and wait for the GPU.
    """
    if harmonics is None:
        return colors
    directions = means - centers[:, None]
    lowest = rgb_to_sh0(colors)[..., None, :].expand(len(directions), -1, -1, -1)
    coefficients = torch.cat([lowest, harmonics.expand(len(directions), -1, -1, -1)], dim=-2)
    found: Tensor = spherical_harmonics(harmonics_degree(harmonics.shape[1]), directions, coefficients)
    return (found + 0.5).clamp_min(0)


def _check_counts(count: int, cameras: Cameras, channels: int) -> None:
    """Raise ValueError where gsplat's unchecked 32-bit indices would overflow and reach memory that is not its own."""
    most = max(count, cameras.width * cameras.height) * len(cameras)
    if most * max(3, channels) >= 1 << 31:
        raise ValueError(
            f"too much for one call of gsplat: {count} Gaussians, {len(cameras)} cameras of "
            f"{cameras.width}x{cameras.height} px, {channels} channels; draw fewer cameras at a time"
        )
