"""The image loss: L1, structural similarity and coverage."""

from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from kg4d import kernels
from kg4d.kernels.l1_ssim import l1_ssim
from kg4d.losses.settings import PhotometricConfig


def image_errors(
    predicted: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean absolute error and mean SSIM of a batch, in one fused pass where the native kernels can be used.

    Without them the values are those of torchmetrics (SSIM with a window of sigma 1.5 px), which are the same.
    """
    if predicted.device.type == "cpu" and kernels.missing_reason() is None:
        return l1_ssim(predicted, target)
    similarity = structural_similarity_index_measure(
        predicted.movedim(-1, 1), target.movedim(-1, 1), data_range=1.0, reduction="elementwise_mean"
    )
    assert isinstance(similarity, Tensor)
    return (predicted - target).abs().mean(), similarity


def photometric_loss(
    predicted: Float[Tensor, "B H W 3"],
    target: Float[Tensor, "B H W 3"],
    alpha: Float[Tensor, "B H W 1"],
    target_alpha: Float[Tensor, "B H W 1"],
    config: PhotometricConfig,
) -> Float[Tensor, ""]:
    """`l1 |I - I*| + ssim (1 - SSIM(I, I*)) + alpha |A - A*|`, each a mean over the batch (Kerbl et al. 2023, eq. 7).

    Args:
        predicted: Renders I, colours in [0, 1].
        target: Images `I*` on the same background.
        alpha: Coverage A of the renders, in [0, 1].
        target_alpha: Coverage `A*` of the images, in [0, 1].
        config: The weights l1, ssim and alpha; `config.weight` is left to the caller.
    """
    l1, similarity = image_errors(predicted, target)
    loss = config.l1 * l1 + config.ssim * (1 - similarity)
    if config.alpha > 0:
        loss = loss + config.alpha * (alpha - target_alpha).abs().mean()
    return loss
