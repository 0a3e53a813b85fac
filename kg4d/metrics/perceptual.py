"""LPIPS and I3D with their trained weights, as functions of images and videos in [0, 1]."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.metrics.protocols import VideoInput
from kg4d.metrics.state import SampleMean
from kg4d.networks.i3d import I3D, INPUT_SIZE, MIN_FRAMES
from kg4d.networks.load import load_i3d, load_lpips
from kg4d.networks.lpips import LPIPS, Backbone
from kg4d.networks.weights import weight_path

CROP_FROM = 256  # side that frames have before the centre crop
LPIPS_MIN_SIZE = 32  # below, the deepest features of AlexNet vanish


def lpips(
    pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"], net: Literal["alex", "vgg"] = "alex"
) -> Float[Tensor, " B"]:
    """LPIPS v0.1 of each pair, >= 0, from the weights in the cache folder; differentiable.

    Args:
        pred: Images in [0, 1].
        target: Images in [0, 1].
        net: Backbone.

    Raises:
        ValueError: `net` is neither "alex" nor "vgg", or the images are smaller than 32 px.
        InputError: The weights are missing or changed.
    """
    return lpips_distance(_kept_lpips(Backbone(net), weight_path(f"lpips-{net}")).to(pred.device), pred, target)


def lpips_distance(
    network: Callable[[Tensor, Tensor], Tensor], pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, " B"]:
    """LPIPS of each pair by a network that is already loaded.

    Args:
        network: Maps two batches of images in [-1, 1] to one distance per pair.
        pred: Images in [0, 1].
        target: Images in [0, 1].

    Raises:
        ValueError: The images are smaller than 32 px.
    """
    height, width = pred.shape[-2:]
    if min(height, width) < LPIPS_MIN_SIZE:
        raise ValueError(f"LPIPS needs images of at least {LPIPS_MIN_SIZE} px, got {width} x {height}")
    return network(2 * pred - 1, 2 * target - 1)


def clip_similarity(
    encoder: Callable[[Tensor], Tensor], pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, " B"]:
    """CLIP-S of each pair: cosine of the two embeddings, in [-1, 1].

    Args:
        encoder: Maps images (B, 3, H, W) in [0, 1] to embeddings (B, D).
        pred: Images in [0, 1].
        target: Images in [0, 1].
    """
    return F.cosine_similarity(encoder(pred), encoder(target))


def i3d_logits(video: Float[Tensor, "B T 3 H W"], video_input: VideoInput = VideoInput.CROP) -> Float[Tensor, "B 400"]:
    """Kinetics-400 logits of I3D, averaged over time, from the weights in the cache folder.

    Args:
        video: Frames in [0, 1].
        video_input: How frames become 224 x 224 px. The choice moves logits by a quarter of their norm, so state it
            with any number.

    Raises:
        ValueError: The video has fewer than 9 frames.
        InputError: The weights are missing or changed.
    """
    network = _kept_i3d(weight_path("i3d-kinetics-400")).to(video.device)
    frames = i3d_frames(video.flatten(0, 1), video_input)
    return i3d_features(network, frames.reshape(*video.shape[:2], *frames.shape[1:]))


def i3d_frames(images: Float[Tensor, "B 3 H W"], video_input: VideoInput) -> Float[Tensor, "B 3 224 224"]:
    """Frames as the network wants them, in [-1, 1].

    `CROP` cuts [16:240] out of 256 px, after a bilinear resize where the frame has another size; `RESIZE` and `BICUBIC`
    scale the whole frame. All resizing is antialiased.
    """
    if video_input is VideoInput.CROP:
        start = (CROP_FROM - INPUT_SIZE) // 2
        images = _resized(images, CROP_FROM, "bilinear")[..., start : start + INPUT_SIZE, start : start + INPUT_SIZE]
    else:
        images = _resized(images, INPUT_SIZE, "bicubic" if video_input is VideoInput.BICUBIC else "bilinear")
    return 2 * images - 1


def i3d_features(network: nn.Module, frames: Float[Tensor, "B T 3 224 224"]) -> Float[Tensor, "B D"]:
    """Output of a video network on clips of frames prepared by `i3d_frames`.

    Raises:
        ValueError: The clips have fewer than 9 frames.
    """
    if frames.shape[1] < MIN_FRAMES:
        raise ValueError(f"I3D needs at least {MIN_FRAMES} frames, got {frames.shape[1]}")
    clips = frames.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
    features: Tensor = network(clips)
    return features


def _resized(images: Tensor, size: int, mode: str) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode=mode, antialias=True)


@lru_cache
def _kept_lpips(net: Backbone, file: Path) -> LPIPS:
    return load_lpips(net.value)  # `file` is only there so that another cache folder means another network


@lru_cache
def _kept_i3d(file: Path) -> I3D:
    return load_i3d()


class MeanLPIPS(SampleMean):
    """Mean of `lpips_distance` over pairs of images in [0, 1].

    Args:
        network: Maps two batches of images in [-1, 1] to one distance per pair, such as
            `kg4d.networks.load.load_lpips("vgg")`.
    """

    higher_is_better = False

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network

    def update(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> None:
        """Add pairs."""
        self.add(lpips_distance(self.network, pred, target))


class CLIPSimilarity(SampleMean):
    """Mean of `clip_similarity` over pairs of images in [0, 1].

    Args:
        encoder: Maps images (B, 3, H, W) in [0, 1] to embeddings (B, D).
    """

    higher_is_better = True

    def __init__(self, encoder: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = encoder

    def update(self, pred: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 H W"]) -> None:
        """Add pairs."""
        self.add(clip_similarity(self.encoder, pred, target))
