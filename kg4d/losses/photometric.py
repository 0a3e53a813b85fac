"""The image loss: L1, structural similarity and coverage."""

from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from kg4d import kernels
from kg4d.kernels.image_loss import ImageWeights, image_loss
from kg4d.losses.settings import PhotometricConfig


def photometric_loss(
    predicted: Float[Tensor, "B H W 3"],
    target: Float[Tensor, "B H W 3"],
    alpha: Float[Tensor, "B H W 1"],
    target_alpha: Float[Tensor, "B H W 1"],
    config: PhotometricConfig,
) -> Float[Tensor, ""]:
    """`l1 |I - I*| + ssim (1 - SSIM(I, I*)) + alpha |A - A*|`, each a mean over the batch (Kerbl et al. 2023, eq. 7).

    All with its gradient is one fused pass where the native kernels can be used. Without them the values are those of
    torchmetrics (SSIM with a window of sigma 1.5 px), which are the same.

    Args:
        predicted: Renders I, colours in [0, 1].
        target: Images `I*` on the same background.
        alpha: Coverage A of the renders, in [0, 1].
        target_alpha: Coverage `A*` of the images, in [0, 1].
        config: The weights l1, ssim and alpha; `config.weight` is left to the caller.
    """
    mattes = (alpha, target_alpha) if config.alpha > 0 else (None, None)
    if predicted.device.type == "cpu" and kernels.missing_reason() is None:
        return image_loss(predicted, target, *mattes, weights=ImageWeights(config.l1, config.ssim, config.alpha))
    similarity = structural_similarity_index_measure(
        predicted.movedim(-1, 1), target.movedim(-1, 1), data_range=1.0, reduction="elementwise_mean"
    )
    assert isinstance(similarity, Tensor)
    loss = config.l1 * (predicted - target).abs().mean() + config.ssim * (1 - similarity)
    return loss if config.alpha <= 0 else loss + config.alpha * (alpha - target_alpha).abs().mean()
