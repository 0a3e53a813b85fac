"""Image quality, one value an image: PSNR, PSNR around the object, SSIM, MS-SSIM.

Every function takes batches of RGB images in [0, 1] and returns one value per image; the class beside it averages.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from kg4d.metrics.state import SampleMean

MSE_FLOOR = 1e-10  # identical images then score 100 dB instead of infinity, and means stay finite
SSIM_WINDOW = 11  # side of the Gaussian window with sigma 1.5: Wang et al. 2004, "Image quality assessment"
SSIM_BORDER = SSIM_WINDOW // 2  # px of each side whose windows leave the image
MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first: Wang et al. 2003


def psnr(pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Peak signal to noise ratio in dB, for a peak of 1. Identical images score 100 dB.

    >>> psnr(torch.full((1, 3, 2, 2), 0.6), torch.full((1, 3, 2, 2), 0.5)).round(decimals=3)
    tensor([20.])
    """
    return _decibel((pred - target).square().mean((1, 2, 3)))


def masked_psnr(
    pred: Float[Tensor, "B 3 H W"],
    target: Float[Tensor, "B 3 H W"],
    mask: Bool[Tensor, "B 1 H W"],
) -> Float[Tensor, " B"]:
    """PSNR over the pixels of `mask` alone; NaN for an image whose mask is empty.

    A white background is trivially right and inflates plain PSNR; `object_mask` gives the usual mask.
    """
    squared = ((pred - target).square() * mask).sum((1, 2, 3))
    count = 3 * mask.sum((1, 2, 3))
    return torch.where(count > 0, _decibel(squared / count.clamp_min(1)), torch.nan)


def object_mask(alpha: Float[Tensor, "B 1 H W"], dilation: int = 8) -> Bool[Tensor, "B 1 H W"]:
    """The object's pixels (alpha > 0.5) grown by a square of `dilation` px on each side.

    Args:
        alpha: True coverage in [0, 1].
        dilation: Reach in px, >= 0 (Chebyshev distance).

    Raises:
        ValueError: `dilation` is negative.

    >>> object_mask(torch.eye(5)[None, None] * torch.arange(5).eq(2), 1).int()[0, 0].tolist()
    [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    """
    if dilation < 0:
        raise ValueError(f"need dilation >= 0, got {dilation}")
    solid = (alpha > 0.5).to(torch.float32)
    side = 2 * dilation + 1
    rows = F.max_pool2d(solid, (side, 1), stride=1, padding=(dilation, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, dilation)) > 0


def ssim(pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Structural similarity, at most 1, as Wang et al. 2004 and scikit-image have it.

    Gaussian window (11 px, sigma 1.5), data range 1, mean over channels and over the pixels whose window lies within
    the image: the border of 5 px does not count.

    Raises:
        ValueError: The images are smaller than the window.
    """
    return _ssim_map(pred, target)[..., SSIM_BORDER:-SSIM_BORDER, SSIM_BORDER:-SSIM_BORDER].mean((1, 2, 3))


def ssim_full(pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """`ssim` with the border, whose windows see the image mirrored: the mean that torchmetrics takes.

    Around an object on an even background it is the higher of the two, the more the smaller the images.

    Raises:
        ValueError: The images are smaller than the window.
    """
    return _ssim_map(pred, target).mean((1, 2, 3))


def ms_ssim(pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """SSIM over five scales, in [0, 1] (Wang et al. 2003): contrast and structure of all, luminance of the coarsest.

    As in `ssim` the border does not count, at no scale; what is negative counts as 0.

    Raises:
        ValueError: The images are too small for five scales (176 px and more are enough).
    """
    *finer, coarsest = MS_SSIM_EXPONENTS
    _check_size("MS-SSIM", pred, SSIM_WINDOW * 2 ** len(finer))
    product = pred.new_ones(len(pred))
    for exponent in finer:
        _, contrast = structural_similarity_index_measure(
            pred, target, data_range=1.0, reduction="none", return_contrast_sensitivity=True
        )
        product = product * contrast.clamp_min(0) ** exponent
        pred, target = F.avg_pool2d(pred, 2), F.avg_pool2d(target, 2)
    return product * ssim(pred, target).clamp_min(0) ** coarsest


def _ssim_map(pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    _check_size("SSIM", pred, SSIM_WINDOW)
    _, similarity = structural_similarity_index_measure(
        pred, target, data_range=1.0, reduction="none", return_full_image=True
    )
    return similarity


def _decibel(mse: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    return -10 * mse.clamp_min(MSE_FLOOR).log10()


def _check_size(name: str, images: Float[Tensor, "B 3 H W"], minimum: int) -> None:
    height, width = images.shape[-2:]
    if min(height, width) < minimum:
        raise ValueError(f"{name} needs images of at least {minimum} px, got {width} x {height}")


class PSNR(SampleMean):
    """Mean of `psnr` over images.

    >>> metric = PSNR()
    >>> metric.update(torch.full((2, 3, 2, 2), 0.6), torch.full((2, 3, 2, 2), 0.5))
    >>> metric.update(torch.full((1, 3, 2, 2), 0.51), torch.full((1, 3, 2, 2), 0.5))
    >>> metric.compute().round(decimals=2)
    tensor(26.6700)
    """

    higher_is_better = True

    def update(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> None:
        """Add images."""
        self.add(psnr(pred, target))


class MaskedPSNR(SampleMean):
    """Mean of `masked_psnr` over the images whose mask is not empty."""

    higher_is_better = True

    def update(
        self,
        pred: Float[Tensor, "B 3 H W"],
        target: Float[Tensor, "B 3 H W"],
        mask: Bool[Tensor, "B 1 H W"],
    ) -> None:
        """Add images."""
        self.add(masked_psnr(pred, target, mask))


class SSIM(SampleMean):
    """Mean of `ssim` over images."""

    higher_is_better = True

    def update(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> None:
        """Add images."""
        self.add(ssim(pred, target))


class FullSSIM(SampleMean):
    """Mean of `ssim_full` over images."""

    higher_is_better = True

    def update(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> None:
        """Add images."""
        self.add(ssim_full(pred, target))


class MultiScaleSSIM(SampleMean):
    """Mean of `ms_ssim` over images."""

    higher_is_better = True

    def update(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> None:
        """Add images."""
        self.add(ms_ssim(pred, target))
