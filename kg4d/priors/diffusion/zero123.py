"""Zero-1-to-3: a diffusion model of a view of an object, given another view and the relative camera.

Sources: Liu et al. 2023, "Zero-1-to-3"; Stability AI, "Stable Zero123" (also conditioned on the reference's elevation).
The checkpoints consist of components of diffusers and transformers, which are put together here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from kg4d.data.images import resample
from kg4d.errors import InputError
from kg4d.priors.diffusion.checkpoint import Checkpoint, find_checkpoint, precision
from kg4d.priors.diffusion.settings import Zero123Kind

COMPONENTS = ("unet", "vae", "image_encoder", "clip_camera_projection", "scheduler")
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


DEFAULT_MODELS = {
    Zero123Kind.ZERO123: "ashawkey/zero123-xl-diffusers",
    Zero123Kind.STABLE_ZERO123: "ashawkey/stable-zero123-diffusers",
}


@dataclass(frozen=True)
class Condition:
    """M reference images, encoded for conditioning.

    Attributes:
        embeddings: CLIP embeddings, one token per image.
        latents: Means of the autoencoder's posterior, not scaled.
    """

    embeddings: Float[Tensor, "M 1 D"]
    latents: Float[Tensor, "M C h w"]

    def __getitem__(self, index: int) -> "Condition":
        """The condition on one of the images, as a set of one."""
        return Condition(self.embeddings[index : index + 1], self.latents[index : index + 1])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Condition":
        """The same condition on another device, in another precision."""
        return Condition(self.embeddings.to(device, dtype), self.latents.to(device, dtype))


class Zero123:
    """The networks of the model, each loaded at its first use.

    Args:
        kind: Which of the two models.
        checkpoint: Its files.
        device: Where the networks run.
        reference_elevation: Elevation of the camera of the reference images, degrees above the horizon.
        attention_slicing: Compute attention in slices: less memory, more time.
    """

    def __init__(
        self,
        kind: Zero123Kind,
        checkpoint: Checkpoint,
        device: torch.device,
        reference_elevation: float = 0.0,
        attention_slicing: bool = False,
    ) -> None:
        self.kind = kind
        self.checkpoint = checkpoint
        self.device = device
        self.dtype = precision(device)
        self.reference_elevation = reference_elevation
        self._slicing = attention_slicing

    @property
    def size(self) -> int:
        """Side of the images that the model was trained on, px."""
        return int(self._unet.config.sample_size * 2 ** (len(self._vae.config.block_out_channels) - 1))

    @cached_property
    def scheduler(self) -> Any:
        """The noise schedule, as diffusers' DDIM sampler."""
        from diffusers import DDIMScheduler

        with self.checkpoint.reading("scheduler"):
            scheduler: Any = DDIMScheduler
            scheduler = scheduler.from_pretrained(self.checkpoint.folder / "scheduler")
            if scheduler.config.prediction_type != "epsilon":
                raise ValueError(f"it predicts {scheduler.config.prediction_type}, not the noise")
        return scheduler

    @torch.no_grad()
    def condition(self, images: Float[Tensor, "M H W 3"]) -> Condition:
        """Encode reference images, RGB on white in [0, 1]. The image encoder is loaded for this and released again."""
        from transformers import CLIPVisionModelWithProjection

        encoder = self.checkpoint.load("image_encoder", CLIPVisionModelWithProjection, self.device)
        images = images.to(self.device)
        side = int(encoder.config.image_size)
        pixels = interpolate(images.movedim(-1, 1), (side, side), mode="bicubic", align_corners=False, antialias=True)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_STD))
        pixels = ((pixels.clamp(0, 1) - mean) / std).to(self.dtype)
        embeddings = torch.cat([encoder(pixels[m : m + 1]).image_embeds for m in range(len(pixels))])
        latents = torch.cat([self.encode(images[m : m + 1]) for m in range(len(images))])
        return Condition(embeddings[:, None].float(), latents / self._vae.config.scaling_factor)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Encode images in [0, 1], resampled to the model's size, to scaled means of the posterior; differentiable."""
        images = images.to(self.device)
        if images.shape[1:3] != (self.size, self.size):
            images = resample(images, self.size, self.size)
        posterior = self._vae.encode((images.movedim(-1, 1) * 2 - 1).to(self.dtype)).latent_dist
        latents: Tensor = posterior.mode().float() * self._vae.config.scaling_factor
        return latents

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Decode scaled latents to images in [0, 1]."""
        decoded = self._vae.decode((latents / self._vae.config.scaling_factor).to(self.dtype)).sample
        images: Tensor = (decoded.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1)
        return images

    def camera_embedding(self, azimuths: Sequence[float], elevations: Sequence[float]) -> Float[Tensor, "B 1 4"]:
        """Encode relative cameras: (polar angle, sin azimuth, cos azimuth, last), angles in radians.

        The last number is the change of distance for `zero123`, always 0 here, and the polar angle of the reference
        camera for `stable_zero123`.

        Args:
            azimuths: B azimuths relative to the reference, degrees, as in `ViewSynthesizer`.
            elevations: B elevations relative to the reference, degrees, as in `ViewSynthesizer`.
        """
        azimuth, elevation = (torch.tensor(a, dtype=torch.float64).deg2rad() for a in (azimuths, elevations))
        reference = torch.tensor(90.0 - self.reference_elevation, dtype=torch.float64).deg2rad()
        last = reference if self.kind is Zero123Kind.STABLE_ZERO123 else torch.zeros_like(reference)
        # the polar angle grows downward from the pole, the elevation upward
        return torch.stack([-elevation, azimuth.sin(), azimuth.cos(), last.expand_as(azimuth)], dim=-1)[:, None].float()

    @torch.no_grad()
    def predict(
        self,
        noisy: Float[Tensor, "B C h w"],
        timestep: int | Sequence[int],
        condition: Condition,
        azimuths: Sequence[float],
        elevations: Sequence[float],
        scale: float,
    ) -> Float[Tensor, "B C h w"]:
        """Predict the noise in latents of B views: unconditional + `scale` (conditional - unconditional).

        Args:
            noisy: Scaled latents with noise.
            timestep: Index of the timestep in the noise schedule, one or one for each view.
            condition: The condition on a single reference image, or on one for each view.
            azimuths: B azimuths of the views relative to the reference, degrees.
            elevations: B elevations of the views relative to the reference, degrees.
            scale: Scale of classifier-free guidance.
        """
        count = len(noisy)
        reference = condition.to(self.device, self.dtype)
        camera = self.camera_embedding(azimuths, elevations).to(reference.embeddings)
        context = self._projection(torch.cat([reference.embeddings.expand(count, -1, -1), camera], dim=-1))
        timesteps = torch.tensor([timestep] * count if isinstance(timestep, int) else list(timestep))
        image = reference.latents.expand(count, -1, -1, -1)
        # both predictions in one pass; the unconditional one gets zeros for the condition
        conditioned = torch.cat([noisy.to(self.device, self.dtype), image], dim=1)
        unconditioned = torch.cat([noisy.to(self.device, self.dtype), torch.zeros_like(image)], dim=1)
        predicted = self._unet(
            torch.cat([unconditioned, conditioned]),
            timesteps.repeat(2).to(self.device),
            encoder_hidden_states=torch.cat([torch.zeros_like(context), context]),
        ).sample.float()
        unconditional, conditional = predicted.chunk(2)
        guided: Tensor = unconditional + scale * (conditional - unconditional)
        return guided

    @cached_property
    def _unet(self) -> Any:
        from diffusers import UNet2DConditionModel

        unet = self.checkpoint.load("unet", UNet2DConditionModel, self.device)
        if unet.config.in_channels != 8:
            what = f"the UNet of {self.checkpoint.model} takes {unet.config.in_channels} channels"
            raise InputError(self.checkpoint.key, what, "give a Zero-1-to-3 model: it takes 8, noise and image")
        if self._slicing:
            unet.set_attention_slice("auto")
        return unet

    @cached_property
    def _vae(self) -> Any:
        from diffusers import AutoencoderKL

        return self.checkpoint.load("vae", AutoencoderKL, self.device)

    @cached_property
    def _projection(self) -> Any:
        from kg4d.priors.diffusion.camera_projection import CLIPCameraProjection

        return self.checkpoint.load("clip_camera_projection", CLIPCameraProjection, self.device)


def find_zero123(key: str, kind: Zero123Kind, model: str | None, *, local_files_only: bool = False) -> Checkpoint:
    """Find the files of a model of this kind.

    Args:
        key: Dotted key of the setting that names the model, for errors.
        kind: Which of the two models.
        model: Hub id or folder; the default model of the kind when None.
        local_files_only: Do not contact the hub.

    Raises:
        InputError: The files are not available, or the model is known to be of the other kind.
    """
    for other, known in DEFAULT_MODELS.items():
        if model == known and other is not kind:  # its views would be from wrong cameras
            what = f"{model} is of kind {other.value}, not {kind.value}"
            raise InputError(key, what, f"set {key.split('.')[0]}.kind={other.value}")
    return find_checkpoint(key, model or DEFAULT_MODELS[kind], COMPONENTS, local_files_only=local_files_only)
