"""The image loss with its gradient in one pass of the native kernels."""

import ctypes
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.kernels.library import ImagePair, address, check_status, native_library, thread_count


class ImageWeights(NamedTuple):
    """Weights of the parts of the image loss."""

    l1: float  # of the mean absolute colour error
    ssim: float  # of 1 - SSIM
    alpha: float = 0.0  # of the mean absolute coverage error


class _ImageLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        prediction: Tensor,
        alpha: Tensor | None,
        target: Tensor,
        target_alpha: Tensor | None,
        weights: ImageWeights,
        data_range: float,
        threads: int,
    ) -> Tensor:
        stride = _pixel_stride(prediction)
        if stride is None:
            prediction = prediction.contiguous()
            stride = prediction.shape[-1]
        target = target.contiguous()
        alpha, target_alpha = (None if a is None else a.contiguous() for a in (alpha, target_alpha))
        shape = [ctypes.c_int64(n) for n in (*prediction.shape, stride)]
        images = map(address, (prediction, target, alpha, target_alpha))
        pair = ImagePair(*shape, *images, data_range, *weights, threads)
        gradient = torch.empty(prediction.shape) if ctx.needs_input_grad[0] else None
        alpha_gradient = torch.empty_like(alpha) if alpha is not None and ctx.needs_input_grad[1] else None
        errors = (ctypes.c_double * 3)()
        check_status(
            native_library().kg4d_image_loss(ctypes.byref(pair), errors, address(gradient), address(alpha_gradient))
        )
        ctx.save_for_backward(gradient, alpha_gradient)
        l1, ssim, coverage = errors
        return torch.tensor(weights.l1 * l1 + weights.ssim * (1 - ssim) + weights.alpha * coverage)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v_loss: Tensor) -> tuple[Tensor | None, ...]:
        factor = float(v_loss)
        scaled = (g if g is None or factor == 1 else g * factor for g in ctx.saved_tensors)
        return *scaled, None, None, None, None, None


def _pixel_stride(images: Tensor) -> int | None:
    """Floats between neighbouring pixels when all pixels are evenly spaced with dense channels, else None."""
    _, height, width, channels = images.shape
    step = images.stride(2) if width > 1 else channels
    even = step >= channels and images.stride() == (height * width * step, width * step, step, 1)
    return step if even else None


def image_loss(
    prediction: Float[Tensor, "B H W C"],
    target: Float[Tensor, "B H W C"],
    alpha: Float[Tensor, "B H W 1"] | None = None,
    target_alpha: Float[Tensor, "B H W 1"] | None = None,
    *,
    weights: ImageWeights,
    data_range: float = 1.0,
    threads: int | None = None,
) -> Float[Tensor, ""]:
    """`weights.l1 |I - I*| + weights.ssim (1 - SSIM(I, I*)) + weights.alpha |A - A*|` on the CPU, each a mean.

    SSIM (Wang et al. 2004) with an 11-tap Gaussian window of sigma 1.5 and mirrored borders, as
    `torchmetrics.functional.structural_similarity_index_measure` has it. The gradient comes from the same pass. A slice
    of channels is read in place.

    Args:
        prediction: Images I, channels last, float32.
        target: What they should be, `I*`; no gradient flows to it.
        alpha: Coverage A; None leaves it out.
        target_alpha: What it should be, `A*`; no gradient flows to it. None where `alpha` is.
        weights: Of the three parts.
        data_range: Difference between the largest and the smallest possible value of the images, > 0.
        threads: Threads to use; as many as torch when None.

    Raises:
        ValueError: Not float32 on the CPU, different or empty shapes, or a data range that is not positive.
        KernelsMissingError: The native kernels are not installed.
    """
    named = {"prediction": prediction, "target": target, "alpha": alpha, "target_alpha": target_alpha}
    for name, images in named.items():
        if images is not None and (images.dtype != torch.float32 or images.device.type != "cpu"):
            raise ValueError(f"{name} must be float32 on the CPU, got {images.dtype} on {images.device}")
    if prediction.dim() != 4 or prediction.shape != target.shape or prediction.numel() == 0:
        raise ValueError(f"need two (B, H, W, C) tensors of one shape, got {prediction.shape} and {target.shape}")
    mattes = [None if a is None else a.shape for a in (alpha, target_alpha)]
    if mattes not in ([None, None], [(*prediction.shape[:3], 1)] * 2):
        raise ValueError(f"need coverage of {prediction.shape[:3]} pixels twice or not at all, got {mattes}")
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}")
    fixed = target.detach(), None if target_alpha is None else target_alpha.detach()
    loss = _ImageLoss.apply(  # type: ignore[no-untyped-call]
        prediction, alpha, *fixed, weights, data_range, thread_count(threads)
    )
    assert isinstance(loss, Tensor)
    return loss
