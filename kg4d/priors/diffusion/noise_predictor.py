"""The live noise predictor of score distillation: Zero-1-to-3 on renders, conditioned on the frames of the input."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.priors.base import Identity
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.diffusion.checkpoint import Checkpoint
from kg4d.priors.diffusion.zero123 import Condition, Zero123, Zero123Kind, find_zero123


class GuidanceKind(StrEnum):
    """Which model guides a fit."""

    NONE = "none"
    ZERO123 = Zero123Kind.ZERO123.value
    STABLE_ZERO123 = Zero123Kind.STABLE_ZERO123.value


@dataclass
class NoiseModelConfig:
    """The diffusion model that judges renders.

    Attributes:
        kind: Which model; none leaves guidance out.
        model: Its hub id or folder; the usual one of its kind when null.
        local_files_only: Do not ask the hub.
        scale: Of classifier-free guidance.
        reference_elevation: Of the camera of the input, degrees above the horizon; as its pose says when null (+Y up).
        attention_slicing: Compute attention in slices: less memory, more time.
    """

    kind: GuidanceKind = GuidanceKind.NONE
    model: str | None = None
    local_files_only: bool = False
    scale: float = 5.0
    reference_elevation: float | None = None
    attention_slicing: bool = True

    def __post_init__(self) -> None:
        """Refuse an elevation from which no camera goes around.

        Raises:
            ValueError: It is too near to a pole.
        """
        if self.reference_elevation is not None and not -85 <= self.reference_elevation <= 85:
            what = f"must lie between -85 and 85 degrees, not {self.reference_elevation}"
            raise ValueError(f"guidance.reference_elevation: {what}")


@dataclass(frozen=True)
class ConditionProvider:
    """What the model makes of the input images, once and for all, as a provider whose results can be kept.

    Attributes:
        checkpoint: Its files.
        half: Whether it computes in half precision.
        size: Side of the images that it was trained on, px; the input is brought to it.
    """

    checkpoint: Checkpoint
    half: bool
    size: int

    @property
    def name(self) -> str:
        """Of the provider."""
        return "guidance-zero123"

    def identity(self) -> Identity:
        """The networks that read the images, at which size, and their precision."""
        weights = self.checkpoint.fingerprint(("vae", "image_encoder"))
        return {"model": self.checkpoint.model, "weights": weights, "half": self.half, "size": self.size}


class Zero123Noise:
    """The noise that Zero-1-to-3 sees in a view of an object, knowing one frame of the input.

    The networks may compute on another device than the renderer: what they are given goes there and comes back.

    Args:
        network: Its networks.
        images: The M frames that it may be told, on white.
        scale: Of classifier-free guidance.
        cache: Keeps what it makes of the frames.
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
        """Side of the images that it was trained on, px."""
        return self.network.size

    @cached_property
    def alphas(self) -> Float[Tensor, " S"]:
        """Share of the signal in the variance at each timestep (the cumulative product), on the CPU."""
        alphas: Tensor = self.network.scheduler.alphas_cumprod.float()
        return alphas

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of renders; differentiable."""
        return self.network.encode(images).to(images.device)

    def predict(
        self, noisy: Float[Tensor, "1 C h w"], timestep: int, frame: int, azimuth: float, elevation: float
    ) -> Float[Tensor, "1 C h w"]:
        """The noise in the latents of a view, `azimuth` and `elevation` degrees away from the camera of a frame."""
        reference = self._condition[frame]
        return self.network.predict(noisy, timestep, reference, [azimuth], [elevation], self._scale).to(noisy.device)

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


def find_noise_model(config: NoiseModelConfig) -> Checkpoint:
    """The files of the model that the config names.

    Args:
        config: Its `kind` is not none.

    Raises:
        InputError: They are not there.
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
    """The model that the config names, found now and read at its first use.

    Args:
        config: Its `kind` is not none.
        images: The M frames of the input, on white.
        reference_elevation: Of their camera, degrees above the horizon.
        device: Where to compute.
        cache: Keeps what the model makes of the frames.

    Raises:
        InputError: The model is not there.
    """
    kind = Zero123Kind(config.kind.value)
    network = Zero123(kind, find_noise_model(config), device, reference_elevation, config.attention_slicing)
    return Zero123Noise(network, images, config.scale, cache)
