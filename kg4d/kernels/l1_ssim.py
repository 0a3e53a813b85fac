"""Mean L1 and mean SSIM of images in one pass of the native kernels, with the gradient."""

import ctypes
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.kernels.library import ImagePair, address, check_status, native_library, thread_count


class L1SSIM(NamedTuple):
    """Two similarity measures of the same images."""

    l1: Float[Tensor, ""]  # mean absolute difference
    ssim: Float[Tensor, ""]  # mean structural similarity, 1 for equal images


class _L1SSIM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, data_range: float, threads: int) -> tuple[Tensor, Tensor]:
        stride = _pixel_stride(prediction)
        if stride is None:
            prediction = prediction.contiguous()
            stride = prediction.shape[-1]
        target = target.contiguous()
        shape = [ctypes.c_int64(n) for n in (*prediction.shape, stride)]
        pair = ImagePair(*shape, prediction.data_ptr(), target.data_ptr(), data_range, threads)
        gradient = torch.empty(prediction.shape) if ctx.needs_input_grad[0] else None
        l1, ssim = ctypes.c_double(), ctypes.c_double()
        check_status(
            native_library().kg4d_l1_ssim(ctypes.byref(pair), ctypes.byref(l1), ctypes.byref(ssim), address(gradient))
        )
        ctx.pair = pair
        ctx.save_for_backward(prediction, target, gradient)
        return torch.tensor(l1.value), torch.tensor(ssim.value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_l1: Tensor, v_ssim: Tensor) -> tuple[Tensor, None, None, None]:
        _, _, ssim_gradient = ctx.saved_tensors
        gradient = torch.empty_like(ssim_gradient)
        weights = float(v_l1), float(v_ssim)
        pair = ctypes.byref(ctx.pair)
        check_status(
            native_library().kg4d_l1_ssim_backward(pair, ssim_gradient.data_ptr(), *weights, gradient.data_ptr())
        )
        return gradient, None, None, None


def _pixel_stride(images: Tensor) -> int | None:
    """Floats between neighbouring pixels when all pixels are evenly spaced with dense channels, else None."""
    _, height, width, channels = images.shape
    step = images.stride(2) if width > 1 else channels
    even = step >= channels and images.stride() == (height * width * step, width * step, step, 1)
    return step if even else None


def l1_ssim(
    prediction: Float[Tensor, "B H W C"],
    target: Float[Tensor, "B H W C"],
    *,
    data_range: float = 1.0,
    threads: int | None = None,
) -> L1SSIM:
    """Mean L1 and mean SSIM of images on the CPU, from one pass, differentiable by `prediction`.

    SSIM (Wang et al. 2004) with an 11-tap Gaussian window of sigma 1.5 and mirrored borders, as
    `torchmetrics.functional.structural_similarity_index_measure` has it. A slice of channels is read in place.

    Args:
        prediction: Images, channels last, float32.
        target: What they should be; no gradient flows to it.
        data_range: Difference between the largest and the smallest possible value, > 0.
        threads: Threads to use; as many as torch when None.

    Raises:
        ValueError: Not float32 on the CPU, different or empty shapes, or a data range that is not positive.
        KernelsMissingError: The native kernels are not installed.
    """
    for name, images in (("prediction", prediction), ("target", target)):
        if images.dtype != torch.float32 or images.device.type != "cpu":
            raise ValueError(f"{name} must be float32 on the CPU, got {images.dtype} on {images.device}")
    if prediction.dim() != 4 or prediction.shape != target.shape or prediction.numel() == 0:
        raise ValueError(f"need two (B, H, W, C) tensors of one shape, got {prediction.shape} and {target.shape}")
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    l1, ssim = _L1SSIM.apply(prediction, target.detach(), data_range, thread_count(threads))  # type: ignore[no-untyped-call]
    return L1SSIM(l1, ssim)
