"""A few Gaussians projected to the image as the renderers do it: what losses on 2D Gaussians ask for."""

import ctypes
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kg4d import kernels
from kg4d.gaussians.state import check_shape
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.projection import EPS2D, Gaussians2D, project_covariances, project_gaussians
from kg4d.kernels import address


def project_subset(
    means: Float[Tensor, "B N 3"],
    quats: Float[Tensor, "B N 4"] | None,
    scales: Float[Tensor, "B N 3"] | None,
    cameras: Cameras,
    ids: Int[Tensor, "M K"],
    frames: Int[Tensor, " M"],
    eps2d: float = EPS2D,
    covariances: Float[Tensor, "B N 6"] | None = None,
) -> Gaussians2D:
    """Project Gaussians given by index, differentiably: row m lists K Gaussians of frame `frames[m]`.

    On the CPU, in float32 and with the native kernels this is a single call, which gives no gradient to a Gaussian
    nearer than 0.01. Elsewhere it is plain torch, some thirty operations for all rows together.

    Args:
        means: Centres in B frames, world units.
        quats: Rotations (w, x, y, z); None where there are covariances.
        scales: Standard deviations, world units; None where there are covariances.
        cameras: One for each frame.
        ids: Indices into the N Gaussians; -1 is padding and gives some valid Gaussian.
        frames: Indices into the B frames.
        eps2d: Variance added to both axes, px²; that of the render which these Gaussians are compared with.
        covariances: Shapes in place of `quats` and `scales`, as in `GaussianState`.

    Returns:
        Centres (M K 2), px, and covariances (M K 2 2), px².

    Raises:
        ValueError: An index is out of range, or the shapes do not fit together.
    """
    frame_count, count = means.shape[:2]
    check_shape(quats, scales, covariances)
    named = {"means": (means, 3), "quats": (quats, 4), "scales": (scales, 3), "covariances": (covariances, 6)}
    wanted: dict[str, tuple[int, ...]]
    wanted = {name: (frame_count, count, size) for name, (values, size) in named.items() if values is not None}
    given = {name: tuple(values.shape) for name, (values, _) in named.items() if values is not None}
    wanted["ids"], given["ids"] = (len(frames), ids.shape[-1]), tuple(ids.shape)
    if given != wanted or frame_count != len(cameras):
        raise ValueError(f"of {len(cameras)} cameras the shapes must be {wanted}, got {given}")
    native = means.device.type == "cpu" and means.dtype == torch.float32 and kernels.missing_reason() is None
    if native:
        shared = cameras.viewmats, cameras.Ks, ids, frames, cameras.width, cameras.height, eps2d
        return Gaussians2D(*_ProjectSubset.apply(means, quats, scales, covariances, *shared))  # type: ignore[no-untyped-call]
    rows = (frames[:, None] * count + ids.clamp_min(0)).flatten()

    def chosen(values: Tensor) -> Tensor:
        return values.flatten(0, 1).index_select(0, rows).reshape(*ids.shape, values.shape[-1])

    seen = (
        cameras.viewmats.index_select(0, frames),
        cameras.Ks.index_select(0, frames),
        cameras.width,
        cameras.height,
    )
    if covariances is not None:
        return project_covariances(chosen(means), chosen(covariances), *seen, eps2d=eps2d)
    assert quats is not None and scales is not None  # noqa: PT018  # `check_shape` has seen to it
    return project_gaussians(chosen(means), chosen(quats), chosen(scales), *seen, eps2d=eps2d)


class _ProjectSubset(torch.autograd.Function):
    """Inputs: means, quats, scales, covariances, viewmats, Ks, ids, frames, width, height, eps2d."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        kinds = (*[torch.float32] * 6, torch.int64, torch.int64)
        given = zip(arguments[:8], kinds, strict=True)
        tensors = [None if tensor is None else tensor.to(kind).contiguous() for tensor, kind in given]
        ctx.save_for_backward(*tensors)
        ctx.numbers = arguments[8:]
        ctx.set_materialize_grads(False)
        rows, columns = arguments[6].shape
        means2d, covs = torch.empty(rows, columns, 2), torch.empty(rows, columns, 2, 2)
        record = ctypes.byref(_record(tensors, ctx.numbers))
        kernels.check_status(kernels.native_library().kg4d_project_subset(record, address(means2d), address(covs)))
        return means2d, covs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *received: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        given = [None if v is None else v.contiguous() for v in received]
        wanted = [None if tensor is None else torch.zeros_like(tensor) for tensor in tensors[:4]]
        record, out = _record(tensors, ctx.numbers), kernels.SubsetGradients(*map(address, wanted))
        kernels.check_status(
            kernels.native_library().kg4d_project_subset_backward(
                ctypes.byref(record), *map(address, given), ctypes.byref(out)
            )
        )
        return (*wanted, *[None] * 7)


def _record(tensors: list[Any], numbers: tuple[int, int, float]) -> kernels.Subset:
    """The native record; it holds addresses, so the tensors must outlive it."""
    means, ids = tensors[0], tensors[6]
    width, height, eps2d = numbers
    addresses = map(address, tensors)
    return kernels.Subset(*means.shape[:2], *ids.shape, width, height, *addresses, eps2d, kernels.thread_count())
