"""The noise predictor of score distillation: Zero-1-to-3 on renders, conditioned on frames of the input."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.priors.base import Identity
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.checkpoint import Checkpoint
from kg4d.priors.diffusion.settings import GuidanceKind, NoiseModelConfig, Zero123Kind
from kg4d.priors.diffusion.zero123 import Condition, Zero123, find_zero123

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConditionProvider:
    """The conditioning on the input images as a provider, so that it can be cached.

    Attributes:
        checkpoint: The files of the model.
        half: Whether the model runs in half precision.
        size: Side of the images that the model was trained on, px; the input is resampled to it.
    """

    checkpoint: Checkpoint
    half: bool
    size: int

    @property
    def name(self) -> str:
        """Name of the provider."""
        return "guidance-zero123"

    def identity(self) -> Identity:
        """Weights of the networks that encode the images, their precision, and the image size."""
        weights = self.checkpoint.fingerprint(("vae", "image_encoder"))
        return {"model": self.checkpoint.model, "weights": weights, "half": self.half, "size": self.size}


class Zero123Noise:
    """Predicts the noise in a view of an object, with Zero-1-to-3 conditioned on one frame of the input.

    The networks may run on another device than the renderer: tensors are moved there and back.

    Args:
        network: The networks.
        images: The M frames that can be conditioned on, RGB on white in [0, 1].
        scale: Scale of classifier-free guidance.
        cache: Keeps the encoded frames; None encodes them anew.
    """

    def __init__(
        self, network: Zero123, images: Float[Tensor, "M H W 3"], scale: float, cache: PriorCache | None = None
    ) -> None:
        self.network = network
        self._images = images
        self._scale = scale
        self._cache = cache

    @property
    def size(self) -> int:
        """Side of the images that the model was trained on, px."""
        return self.network.size

    @cached_property
    def alphas(self) -> Float[Tensor, " S"]:
        """Fraction of the variance that is signal at each of the S timesteps (`alphas_cumprod`), on the CPU."""
        alphas: Tensor = self.network.scheduler.alphas_cumprod.float()
        return alphas

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Encode renders in [0, 1] to latents; differentiable."""
        return self.network.encode(images).to(images.device)

    def predict(
        self, noisy: Float[Tensor, "B C h w"], timesteps: Sequence[int], viewpoints: Sequence[tuple[int, float, float]]
    ) -> Float[Tensor, "B C h w"]:
        """Predict the noise in the latents of B views, in one pass.

        Args:
            noisy: Latents with noise.
            timesteps: Indices of the timesteps in the noise schedule.
            viewpoints: The frame that each is conditioned on, and azimuth and elevation of the view relative to the
                camera of that frame, degrees.
        """
        frames, azimuths, elevations = zip(*viewpoints, strict=True)
        condition = self._condition
        references = Condition(condition.embeddings[list(frames)], condition.latents[list(frames)])
        guided = self.network.predict(noisy, timesteps, references, azimuths, elevations, self._scale)
        return guided.to(noisy.device)

    @cached_property
    def _condition(self) -> Condition:
        def make() -> dict[str, Tensor]:
            made = self.network.condition(self._images)
            return {"embeddings": made.embeddings, "latents": made.latents}

        if self._cache is None:
            kept = make()
        else:
            half = self.network.dtype == torch.float16
            provider = ConditionProvider(self.network.checkpoint, half, self.network.size)
            kept = self._cache.get_or_make(provider, {"images": self._images}, make)
        return Condition(kept["embeddings"], kept["latents"]).to(self.network.device, self.network.dtype)


def settle_noise_model(config: NoiseModelConfig) -> GuidanceKind:
    """The kind of the settings, with `auto` settled: the first whose files are on this machine; nothing is fetched."""
    if config.kind is not GuidanceKind.AUTO:
        return config.kind
    for kind in Zero123Kind:
        try:
            found = find_zero123("guidance.model", kind, config.model, local_files_only=True)
        except InputError:
            continue
        _log.info("guidance.kind=auto: %s judges new views", found.model)
        return GuidanceKind(kind.value)
    _log.info("guidance.kind=auto: no weights of a Zero-1-to-3 are on this machine, so nothing judges new views")
    return GuidanceKind.NONE


def find_noise_model(config: NoiseModelConfig) -> Checkpoint:
    """Find the files of the model that the settings name.

    Args:
        config: The settings; their `kind` is a model's.

    Raises:
        InputError: The files are not available.
    """
    kind = Zero123Kind(config.kind.value)
    return find_zero123("guidance.model", kind, config.model, local_files_only=config.local_files_only)


def build_noise_model(
    config: NoiseModelConfig,
    images: Float[Tensor, "M H W 3"],
    reference_elevation: float,
    device: torch.device,
    cache: PriorCache | None = None,
) -> Zero123Noise:
    """The noise predictor that the settings name; its files are found now and loaded at the first use.

    Args:
        config: The settings; their `kind` is a model's.
        images: The M frames of the input, RGB on white in [0, 1].
        reference_elevation: Elevation of their camera, degrees above the horizon.
        device: Where the networks run.
        cache: Keeps the encoded frames; None encodes them anew.

    Raises:
        InputError: The model is not available.
    """
    kind = Zero123Kind(config.kind.value)
    network = Zero123(kind, find_noise_model(config), device, reference_elevation, config.attention_slicing)
    return Zero123Noise(network, images, config.scale, cache)
