"""Gaussians in space and time, cut at given times: 3D Gaussians that move and fade (Yang et al. 2024, section 3.2).

With the mean (mu_x, mu_t) and the covariance S of a 4D Gaussian, what is left at a time t is the Gaussian of x given t:
mean mu_x + S_xt (t - mu_t) / S_tt, covariance S_xx - S_xt S_tx / S_tt, and the weight exp(-(t - mu_t)² / (2 S_tt)).
"""

import ctypes
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d import kernels
from kg4d.geometry.covariances import packed
from kg4d.geometry.rotations4 import pair_to_matrix
from kg4d.kernels import address

_LEAST_VARIANCE = 1e-20  # of time


class Spacetime(NamedTuple):
    """N activated Gaussians in space and time, in the order x, y, z, t."""

    means: Float[Tensor, "N 4"]  # world units and time
    left: Float[Tensor, "N 4"]  # a pair of quaternions (w, x, y, z), see `kg4d.geometry.rotations4`
    right: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 4"]  # standard deviations along the local axes, > 0
    opacities: Float[Tensor, " N"]  # in (0, 1)


class Slices(NamedTuple):
    """N Gaussians at B times. Shapes and velocities do not depend on the time."""

    means: Float[Tensor, "B N 3"]
    opacities: Float[Tensor, "B N"]  # exactly 0 where the temporal weight is below the least one
    covariances: Float[Tensor, "N 6"]  # xx, xy, xz, yy, yz, zz
    velocities: Float[Tensor, "N 3"]  # S_xt / S_tt, world units per unit of time


def sliced(gaussians: Spacetime, times: Float[Tensor, " B"], least_weight: float = 0.0) -> Slices:
    """Cut Gaussians at times, differentiably.

    On the CPU, in float32 and with the native kernels each pass is a single call. Elsewhere it is plain torch.

    Args:
        gaussians: In space and time.
        times: Any; far from a Gaussian nothing is left of it.
        least_weight: Temporal weights below this are taken as 0: such a Gaussian is not drawn, and gets no gradient.
    """
    tensors = (*gaussians, times)
    on_cpu = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    if on_cpu and kernels.missing_reason() is None:
        return Slices(*_Slice.apply(*tensors, least_weight))  # type: ignore[no-untyped-call]
    axes = spacetime_axes(gaussians)
    space, time = axes[:, :3], axes[:, 3]
    variance = time.square().sum(-1).clamp_min(_LEAST_VARIANCE)
    velocities = (space @ time[..., None])[..., 0] / variance[:, None]
    across = space - velocities[..., None] * time[:, None]  # what does not change with time: no sum that cancels
    since = times[:, None] - gaussians.means[:, 3]
    weights = torch.exp(-since.square() / (2 * variance))
    weights = torch.where(weights >= least_weight, weights, 0.0)
    means = gaussians.means[:, :3] + since[..., None] * velocities
    return Slices(means, gaussians.opacities * weights, packed(across @ across.mT), velocities)


def spacetime_axes(gaussians: Spacetime) -> Float[Tensor, "N 4 4"]:
    """A = R diag(s), of which the covariance is A Aᵀ."""
    return pair_to_matrix(gaussians.left, gaussians.right) * gaussians.scales[:, None]


class _Slice(torch.autograd.Function):
    """Inputs: means, left, right, scales, opacities, times, least weight."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tensors = [tensor.contiguous() for tensor in arguments[:6]]
        ctx.save_for_backward(*tensors)
        ctx.least_weight = arguments[6]
        ctx.set_materialize_grads(False)
        count, times = len(tensors[0]), len(tensors[5])
        made = (
            torch.empty(times, count, 3),
            torch.empty(times, count),
            torch.empty(count, 6),
            torch.empty(count, 3),
        )
        record, out = _record(tensors, ctx.least_weight), kernels.Slices(*map(address, made))
        kernels.check_status(kernels.native_library().kg4d_slice(ctypes.byref(record), ctypes.byref(out)))
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *received: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        given = [None if v is None else v.contiguous() for v in received]
        wanted = [torch.empty_like(tensor) for tensor in tensors[:5]]
        record, out = _record(tensors, ctx.least_weight), kernels.SliceGradients(*map(address, (*given, *wanted)))
        kernels.check_status(kernels.native_library().kg4d_slice_backward(ctypes.byref(record), ctypes.byref(out)))
        return (*wanted, None, None)


def _record(tensors: list[Tensor], least_weight: float) -> kernels.Spacetime:
    """The native record; it holds addresses, so the tensors must outlive it."""
    sizes = len(tensors[0]), len(tensors[5])
    return kernels.Spacetime(*sizes, *map(address, tensors), least_weight, kernels.thread_count())
