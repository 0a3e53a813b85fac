"""A few Gaussians projected to the image as the renderers do it: what losses on 2D Gaussians ask for."""

import ctypes
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d import kernels
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import EPS2D, Gaussians2D, project_gaussians
from kg4d.kernels import address


def project_subset(
    means: Float[Tensor, "B N 3"],
    quats: Float[Tensor, "B N 4"],
    scales: Float[Tensor, "B N 3"],
    cameras: Cameras,
    ids: Int[Tensor, "M K"],
    frames: Int[Tensor, " M"],
    eps2d: float = EPS2D,
) -> Gaussians2D:
    """Project Gaussians given by index, differentiably: row m lists K Gaussians of frame `frames[m]`.

    On the CPU, in float32 and with the native kernels this is a single call, which gives no gradient to a Gaussian
    nearer than 0.01. Elsewhere it is plain torch, some thirty operations for all rows together.

    Args:
        means: Centres in B frames, world units.
        quats: Rotations (w, x, y, z).
        scales: Standard deviations, world units.
        cameras: One for each frame.
        ids: Indices into the N Gaussians; -1 is padding and gives some valid Gaussian.
        frames: Indices into the B frames.
        eps2d: Variance added to both axes, px²; that of the render which these Gaussians are compared with.

    Returns:
        Centres (M K 2), px, and covariances (M K 2 2), px².

    Raises:
        ValueError: An index is out of range, or the shapes do not fit together.
    """
    frame_count, count = means.shape[:2]
    given = [tuple(tensor.shape) for tensor in (means, quats, scales, ids)]
    wanted = [(frame_count, count, size) for size in (3, 4, 3)] + [(len(frames), ids.shape[-1])]
    if given != wanted or frame_count != len(cameras):
        raise ValueError(f"means, quats, scales and ids of {len(cameras)} cameras must be {wanted}, got {given}")
    native = means.device.type == "cpu" and means.dtype == torch.float32 and kernels.missing_reason() is None
    if native:
        shared = cameras.viewmats, cameras.Ks, ids, frames, cameras.width, cameras.height, eps2d
        return Gaussians2D(*_ProjectSubset.apply(means, quats, scales, *shared))  # type: ignore[no-untyped-call]
    rows = (frames[:, None] * count + ids.clamp_min(0)).flatten()

    def chosen(values: Tensor) -> Tensor:
        return values.flatten(0, 1).index_select(0, rows).reshape(*ids.shape, values.shape[-1])

    return project_gaussians(
        chosen(means),
        chosen(quats),
        chosen(scales),
        cameras.viewmats.index_select(0, frames),
        cameras.Ks.index_select(0, frames),
        cameras.width,
        cameras.height,
        eps2d=eps2d,
    )


class _ProjectSubset(torch.autograd.Function):
    """Inputs: means, quats, scales, viewmats, Ks, ids, frames, width, height, eps2d."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        kinds = (*[torch.float32] * 5, torch.int64, torch.int64)
        tensors = [tensor.to(kind).contiguous() for tensor, kind in zip(arguments[:7], kinds, strict=True)]
        ctx.save_for_backward(*tensors)
        ctx.numbers = arguments[7:]
        ctx.set_materialize_grads(False)
        rows, columns = tensors[5].shape
        means2d, covs = torch.empty(rows, columns, 2), torch.empty(rows, columns, 2, 2)
        record = ctypes.byref(_record(tensors, ctx.numbers))
        kernels.check_status(kernels.native_library().kg4d_project_subset(record, address(means2d), address(covs)))
        return means2d, covs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *received: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        given = [None if v is None else v.contiguous() for v in received]
        wanted = [torch.zeros_like(tensor) for tensor in tensors[:3]]
        record = ctypes.byref(_record(tensors, ctx.numbers))
        kernels.check_status(
            kernels.native_library().kg4d_project_subset_backward(record, *map(address, (*given, *wanted)))
        )
        return (*wanted, *[None] * 7)


def _record(tensors: list[Tensor], numbers: tuple[int, int, float]) -> kernels.Subset:
    """The native record; it holds addresses, so the tensors must outlive it."""
    means, _, _, _, _, ids, _ = tensors
    width, height, eps2d = numbers
    addresses = map(address, tensors)
    return kernels.Subset(*means.shape[:2], *ids.shape, width, height, *addresses, eps2d, kernels.thread_count())
