"""Score distillation: a diffusion model's opinion of a render, as a loss (the paper's L_SSDS).

Sources: Poole et al. 2022, "DreamFusion", eq. 3; the falling timestep and w = 1 - alpha-bar of DreamGaussian (Tang et
al. 2023) and DreamGaussian4D.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.losses.settings import SdsConfig


class Viewpoint(NamedTuple):
    """A camera that looks at the object at the distance of the reference camera."""

    frame: int  # of the input, which conditions the model
    azimuth: float  # degrees from the reference camera, positive to its right
    elevation: float  # degrees above the reference camera


@runtime_checkable  # for the tests, which check arguments at run time
class NoisePredictor(Protocol):
    """A latent diffusion model, conditioned on a frame of the input and on the motion of the camera from there."""

    @property
    def size(self) -> int:
        """Side of the images that it was trained on, px."""
        ...

    @property
    def alphas(self) -> Float[Tensor, " S"]:
        """Fraction of the signal in the variance at each timestep: alpha-bar, the cumulative product."""
        ...

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in [0, 1]; differentiable."""
        ...

    def predict(
        self, noisy: Float[Tensor, "B C h w"], timesteps: Sequence[int], viewpoints: Sequence[Viewpoint]
    ) -> Float[Tensor, "B C h w"]:
        """The noise eps_hat in the noisy latents of B views.

        Args:
            noisy: Latents with noise.
            timesteps: How much noise in each, as indices into `alphas`.
            viewpoints: Where the cameras stand, and which frames of the input condition the model.
        """
        ...


def timestep_of(config: SdsConfig, progress: float, count: int, generator: torch.Generator) -> int:
    """The timestep of one view: it falls linearly with the progress of the stage, from the noisiest to the cleanest.

    Args:
        config: Limits, and whether the timestep is drawn at random.
        progress: Fraction of the stage that is done, in [0, 1].
        count: Length of the noise schedule.
        generator: Source of randomness.

    >>> [timestep_of(SdsConfig(), share, 1000, torch.Generator()) for share in (0.0, 0.4, 1.0)]
    [980, 600, 20]
    """
    least, most = round(config.min_time * count), min(round(config.max_time * count), count - 1)
    least = min(least, most)
    falling = min(max(round((1 - progress) * count), least), most)
    if not config.random_time:
        return falling
    return int(torch.randint(least, falling + 1, (), generator=generator))


def sds_loss(
    predictor: NoisePredictor,
    images: Float[Tensor, "B H W 3"],
    viewpoints: Sequence[Viewpoint],
    timesteps: Sequence[int],
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """1/2 |z - stopgrad(z - w (eps_hat - eps))|^2 summed over the latents z of B renders, with w = 1 - alpha-bar.

    The gradient in z is w (eps_hat - eps) (Poole et al. 2022, eq. 3). It is carried through the encoder to the renders
    at once, so that the activations are gone when the rest of a step is computed. This is done at full scale, whatever
    factor the loss gets later: small numbers would vanish in half precision.

    Args:
        predictor: The diffusion model; it sees all views in one batch.
        images: The renders, in [0, 1], on white.
        viewpoints: Where the cameras of the renders stand.
        timesteps: How much noise is added to each, as indices into `predictor.alphas`.
        generator: Source of the noise.
    """
    render = images.detach().requires_grad_()
    with torch.enable_grad():
        latents = predictor.encode(render)
        residual = sds_residual(predictor, latents.detach(), viewpoints, timesteps, generator)
        target = (latents - residual).detach()
        loss = 0.5 * (latents - target).square().sum()
        (gradient,) = torch.autograd.grad(loss, render)
    tangent = (images * gradient).sum()  # its value is taken off again; its gradient is the one just found
    return loss.detach() + (tangent - tangent.detach())


@torch.no_grad()
def sds_residual(
    predictor: NoisePredictor,
    latents: Float[Tensor, "B C h w"],
    viewpoints: Sequence[Viewpoint],
    timesteps: Sequence[int],
    generator: torch.Generator,
) -> Float[Tensor, "B C h w"]:
    """The residual w (eps_hat - eps), w = 1 - alpha-bar: what the model finds in the noise beyond what was added.

    Args:
        predictor: The diffusion model.
        latents: Of the renders, without noise.
        viewpoints: Where the cameras of the renders stand.
        timesteps: How much noise is added to each, as indices into `predictor.alphas`.
        generator: Source of the noise eps.
    """
    # drawn on the CPU, so that every device gets the same
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    alpha = predictor.alphas[list(timesteps), None, None, None].to(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    return (1 - alpha) * (predictor.predict(noisy, timesteps, viewpoints) - noise)
