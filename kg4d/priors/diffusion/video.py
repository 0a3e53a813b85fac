"""A video from one image, by Stable Video Diffusion or any other image-to-video pipeline of diffusers.

Source: Blattmann et al. 2023, "Stable Video Diffusion".
"""

import inspect
import logging
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kg4d.data.images import quantize, resample
from kg4d.errors import InputError
from kg4d.priors.base import Identity
from kg4d.priors.diffusion.checkpoint import find_checkpoint
from kg4d.priors.diffusion.views import on_white
from kg4d.priors.progress import counted

_log = logging.getLogger(__name__)
_KEY = "video.model"


class VideoKind(StrEnum):
    """Where the video of a single image comes from."""

    AUTO = "auto"  # diffusion
    DIFFUSION = "diffusion"
    FILES = "files"
    STILL = "still"  # none: the image is all there is, and a motion comes from elsewhere (`motion.path`)


@dataclass
class VideoConfig:
    """The video of a single image. Settings for which a pipeline has no argument are not passed to it.

    Attributes:
        kind: Where it comes from.
        path: For `kind: files`: the video, or the folder of its frames.
        model: Hub id or folder of an image-to-video pipeline.
        local_files_only: Do not contact the hub.
        frames: Number of frames; networks do best at the lengths that they were trained on.
        size: Side of the frames that the network generates, px, a multiple of 8.
        prompt: Text prompt, for pipelines that take one.
        steps: Number of sampling steps.
        fps: Frame rate that the network is conditioned on, frames per second.
        motion: Amount of motion, from 1 to 255 (Stable Video Diffusion's motion bucket).
        noise: Noise added to the input (Stable Video Diffusion); more gives more motion, and less likeness.
        decode_chunk_size: Number of frames decoded at once: fewer take less memory, more flicker less.
        seed: Seed of the noise.
        attention_slicing: Compute attention in slices: less memory, more time. Stable Video Diffusion does not support
            it.
    """

    kind: VideoKind = VideoKind.AUTO
    path: str | None = None
    model: str = "stabilityai/stable-video-diffusion-img2vid"
    local_files_only: bool = False
    frames: int = 14
    size: int = 512
    prompt: str = ""
    steps: int = 25
    fps: int = 7
    motion: int = 127
    noise: float = 0.02
    decode_chunk_size: int = 4
    seed: int = 0
    attention_slicing: bool = False

    def __post_init__(self) -> None:
        """Check the ranges of the settings.

        Raises:
            ValueError: The size is not a positive multiple of 8, or another number is too small.
        """
        if self.size < 8 or self.size % 8:
            raise ValueError(f"video.size: must be a positive multiple of 8, not {self.size}")
        if self.frames < 2:
            raise ValueError(f"video.frames: must be at least 2, not {self.frames}")
        for name in ("steps", "fps", "decode_chunk_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"video.{name}: must be at least 1, not {getattr(self, name)}")


class DiffusionVideo:
    """`VideoSynthesizer` by a pipeline of diffusers.

    Frame 0 is the input itself, since the network's own frame 0 is only the input encoded and decoded.

    Args:
        config: The model and how to call it.
        device: Where it runs.

    Raises:
        InputError: The model is not available.
    """

    name = "video-diffusion"

    def __init__(self, config: VideoConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.checkpoint = find_checkpoint(_KEY, config.model, (), local_files_only=config.local_files_only)

    def identity(self) -> Identity:
        """Weights, settings of the sampler, and precision."""
        unused = {"kind", "path", "model", "local_files_only", "frames", "attention_slicing"}
        settings = {key: value for key, value in asdict(self.config).items() if key not in unused}
        return {
            "model": self.checkpoint.model,
            "weights": self.checkpoint.fingerprint(),
            "half": self.device.type == "cuda",
            **settings,
        }

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "H W 4"], frames: int) -> Float[Tensor, "T H W 3"]:
        """Generate a video of `frames` frames on white; frame 0 is the input.

        Raises:
            InputError: The model is not an image-to-video model, makes fewer frames, or made NaN or infinity.
        """
        height, width = image.shape[:2]
        first = on_white(image)
        made = self._sample(resample(first[None], self.config.size, self.config.size)[0], frames)
        if len(made) < frames:
            what = f"{self.checkpoint.model} made {len(made)} frames, not {frames}"
            raise InputError(_KEY, what, f"ask for at most video.frames={len(made)}")
        if not torch.isfinite(made).all():
            what = f"{self.checkpoint.model} made frames that are no numbers"
            raise InputError(_KEY, what, "its half precision does not work here: use another model")
        video = resample(made[:frames], width, height).clamp(0, 1)
        difference = float((video[0] - first).abs().mean())
        _log.log(
            logging.WARNING if difference > 0.1 else logging.INFO,
            "%s: its frame 0 is %.3f off the input (mean absolute difference); the input takes its place",
            self.checkpoint.model,
            difference,
        )
        video[0] = first
        return video

    def _sample(self, image: Float[Tensor, "size size 3"], frames: int) -> Float[Tensor, "T size size 3"]:
        config = self.config
        ticks = counted(range(config.steps), config.steps, "steps")
        next(ticks)

        def on_step_end(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            next(ticks, None)
            return tensors

        arguments = {
            "prompt": config.prompt,
            "height": config.size,
            "width": config.size,
            "num_frames": frames,
            "num_inference_steps": config.steps,
            "fps": config.fps,
            "motion_bucket_id": config.motion,
            "noise_aug_strength": config.noise,
            "decode_chunk_size": config.decode_chunk_size,
            "generator": torch.Generator().manual_seed(config.seed),
            "output_type": "np",
            "callback_on_step_end": on_step_end,
        }
        known = inspect.signature(type(self._pipeline).__call__).parameters
        if "image" not in known:
            what = f"{self.checkpoint.model} makes no video from an image ({type(self._pipeline).__name__})"
            raise InputError(_KEY, what, "give an image-to-video model")
        picture = Image.fromarray(quantize(image).numpy())
        result = self._pipeline(image=picture, **{key: value for key, value in arguments.items() if key in known})
        if not hasattr(result, "frames"):
            what = f"{self.checkpoint.model} makes pictures, not a video ({type(self._pipeline).__name__})"
            raise InputError(_KEY, what, "give an image-to-video model")
        return torch.from_numpy(result.frames[0]).float()

    @cached_property
    def _pipeline(self) -> Any:
        from diffusers import DiffusionPipeline

        return self.checkpoint.load_pipeline(DiffusionPipeline, self.device, self.config.attention_slicing)
