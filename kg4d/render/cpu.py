"""The renderer on the native CPU kernels."""

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d import kernels
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.degrees import harmonics_degree
from kg4d.kernels import address
from kg4d.render.base import Contributors, RasterOptions, RenderOutput
from kg4d.render.frames import Frames, draw_one_by_one
from kg4d.render.inputs import check_inputs, check_query


class CpuRenderer:
    """Multithreaded SIMD splatting; results are equal to the last bit for any number of threads."""

    name = "cpu"
    reason = "asked for"
    options = RasterOptions()
    device = torch.device("cpu")

    def __init__(self, threads: int | None = None) -> None:
        """Use `threads` threads, as many as torch when None; KernelsMissingError without the native library."""
        kernels.native_library()
        kernels.thread_count(threads)
        self._threads = threads

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
        """See `kg4d.render.base.Renderer`. NaN and Inf raise ValueError too; too much work raises MemoryError."""
        options = options or self.options
        inputs = check_inputs(gaussians, cameras, features, background, options, device=self.device)
        call = _Call(cameras.width, cameras.height, depth, absgrad, options, kernels.thread_count(self._threads))
        image, alpha, expected, means2d, radii = _Rasterize.apply(  # type: ignore[no-untyped-call]
            *(gaussians.means, gaussians.quats, gaussians.scales, gaussians.covariances, gaussians.opacities),
            *(inputs.features, inputs.harmonics, cameras.viewmats, cameras.Ks, inputs.background, call),
        )
        if means2d.requires_grad:
            means2d.retain_grad()
            call.means2d = weakref.ref(means2d)
        return RenderOutput(image, alpha, expected, means2d, radii, options, call.plan)

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
        """See `kg4d.render.base.Renderer`."""
        return draw_one_by_one(self, gaussians, cameras, features, background, depth, options or self.options)

    def contributors(
        self, output: RenderOutput, camera_ids: Int[Tensor, " P"], pixels: Float[Tensor, "P 2"], k: int
    ) -> Contributors:
        """See `kg4d.render.base.Renderer`."""
        if isinstance(output.handle, Frames):
            return output.handle.contributors(self, camera_ids, pixels, k)
        if not isinstance(output.handle, kernels.RenderPlan):
            raise ValueError("this output comes from another renderer")
        check_query(camera_ids, pixels, k)
        cameras = camera_ids.to(torch.int32).contiguous()
        corners = pixels.detach().nan_to_num(-1.0).floor().clamp(-1, 1 << 24).to(torch.int32).contiguous()
        ids, weights = torch.empty(len(pixels), k, dtype=torch.int64), torch.empty(len(pixels), k)
        threads = kernels.thread_count(self._threads)
        asked = len(pixels), address(cameras), address(corners), k, threads
        kernels.check_status(
            kernels.native_library().kg4d_contributors(output.handle.pointer, *asked, address(ids), address(weights))
        )
        return Contributors(ids, weights)


@dataclass(eq=False)
class _Call:
    """One render call: its settings, and what its backward pass needs."""

    width: int
    height: int
    depth: bool
    absgrad: bool
    options: RasterOptions
    threads: int
    plan: kernels.RenderPlan | None = None
    means2d: "weakref.ref[Tensor] | None" = None  # weak: the output owns the graph, not the other way round

    def scene(self, tensors: tuple[Any, ...]) -> kernels.NativeScene:
        """The native record of dense inputs."""
        means, _, _, _, _, features, harmonics, viewmats, _, _ = tensors
        sizes = len(means), len(viewmats), features.shape[-1], self.width, self.height
        rules = self.options.eps2d, self.options.near, self.options.far, self.options.radius_clip
        degree = 0 if harmonics is None else harmonics_degree(harmonics.shape[1])
        flags = features.dim() == 3, self.options.antialiased, degree, self.threads
        return kernels.NativeScene(*sizes, *map(address, tensors), *rules, *flags)

    def publish(self, gradient: Tensor, absolute: Tensor | None) -> None:
        """Add the screen-space gradients to `.grad` and `.absgrad` of the centres, if these are still referenced."""
        means2d = None if self.means2d is None else self.means2d()
        if means2d is None:
            return
        means2d.grad = gradient if means2d.grad is None else means2d.grad + gradient
        if absolute is not None:
            before = getattr(means2d, "absgrad", None)
            means2d.absgrad = absolute if before is None else before + absolute  # type: ignore[attr-defined]


class _Rasterize(torch.autograd.Function):
    """Inputs: means, quats, scales, covariances, opacities, features, harmonics, viewmats, Ks, background, call."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        call: _Call = arguments[-1]
        inputs: tuple[Any, ...] = tuple(None if t is None else t.contiguous() for t in arguments[:-1])
        cameras, count, channels = len(inputs[7]), len(inputs[0]), inputs[5].shape[-1]
        image = torch.empty(cameras, call.height, call.width, channels)
        alpha = torch.empty(cameras, call.height, call.width, 1)
        depth = torch.empty_like(alpha) if call.depth else None
        means2d = torch.empty(cameras, count, 2)
        radii = torch.empty(cameras, count, 2, dtype=torch.int32)
        call.plan = kernels.RenderPlan()
        scene = call.scene(inputs)
        out = kernels.Images(*map(address, (image, alpha, depth, means2d, radii)))
        kernels.check_status(
            kernels.native_library().kg4d_forward(call.plan.pointer, ctypes.byref(scene), ctypes.byref(out))
        )
        ctx.save_for_backward(*inputs, alpha if ctx.needs_input_grad[9] else None)
        ctx.call = call
        ctx.mark_non_differentiable(radii)
        ctx.set_materialize_grads(False)
        return image, alpha, depth, means2d, radii

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *received: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        *inputs, alpha = ctx.saved_tensors
        given = tuple(None if v is None else v.contiguous() for v in received[:4])
        wanted: list[Tensor | None] = [None if t is None else torch.empty_like(t) for t in inputs[:5]]
        wanted += [torch.empty_like(inputs[i]) if ctx.needs_input_grad[i] else None for i in (5, 6, 7)]
        v_means2d = inputs[0].new_empty(len(inputs[7]), len(inputs[0]), 2)
        absolute = torch.empty_like(v_means2d) if call.absgrad else None
        scene = call.scene(tuple(inputs))
        out = kernels.Gradients(*map(address, (*given, *wanted, v_means2d, absolute)))
        assert call.plan is not None
        kernels.check_status(
            kernels.native_library().kg4d_backward(call.plan.pointer, ctypes.byref(scene), ctypes.byref(out))
        )
        call.publish(v_means2d if given[3] is None else v_means2d - given[3], absolute)  # autograd retains given[3]
        v_background = None
        if alpha is not None and given[0] is not None:
            v_background = ((1 - alpha) * given[0]).sum(dim=(1, 2))
        return (*wanted, None, v_background, None)
