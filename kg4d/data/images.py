"""Reading, writing and resampling images: straight RGBA in [0, 1] everywhere.

Files hold straight alpha. Everything that mixes pixels (resampling, compositing) premultiplies first, so that the
colour of a transparent pixel never shows.
"""

import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from kg4d.errors import InputError
from kg4d.geometry.sampling import sample_image
from kg4d.utils.files import replacing

_FORMATS = ("PNG", "JPEG", "WEBP")
# What Pillow raises for damaged files.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
_CONVERT = "convert it to an RGB or RGBA PNG, JPEG or WebP"


def read_image(path: str | Path) -> Float[Tensor, "H W 4"]:
    """Read an image as RGBA; the orientation in its EXIF data is applied.

    Grey and palette images become RGB, 16 bits become 8.

    Args:
        path: PNG, JPEG or WebP file.

    Returns:
        Straight RGBA in [0, 1]; alpha is 1 if the file has none.

    Raises:
        InputError: The file is missing, damaged, of another format, CMYK or animated.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "check the path")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            pixels = np.array(_eight_bits(image, path).convert("RGBA"))
    except InputError:
        raise
    except DAMAGED as error:
        what = "cannot be read as PNG, JPEG or WebP: it is damaged or of another format"
        raise InputError(path, what, "save it again as one of these") from error
    return torch.from_numpy(pixels).float() / 255


def read_mask(path: str | Path) -> Float[Tensor, "H W 1"]:
    """Read a matte in [0, 1]: the alpha channel if the file has one, else its brightness (white is the object).

    Args:
        path: PNG, JPEG or WebP file.

    Raises:
        InputError: The file is missing, damaged, of another format, CMYK or animated.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "check the path")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            upright = _eight_bits(image, path)
            alpha = upright.convert("RGBA").getchannel("A")
            pixels = np.array(alpha if upright.has_transparency_data else upright.convert("L"))
    except InputError:
        raise
    except DAMAGED as error:
        what = "cannot be read as PNG, JPEG or WebP: it is damaged or of another format"
        raise InputError(path, what, "save it again as one of these") from error
    return torch.from_numpy(pixels).float()[..., None] / 255


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The upright image with channels of 8 bits.

    Raises:
        InputError: It is an animation, or its colours are not RGB or grey.
    """
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(path, "is an animation", "give one picture a file")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        values = np.array(ImageOps.exif_transpose(image))
        return Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode not in _MODES:
        raise InputError(path, f"is a {image.mode} image", _CONVERT)
    return ImageOps.exif_transpose(image)  # of 16-bit RGB, Pillow has kept the upper bytes


def quantize(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Convert values in [0, 1] to 8-bit values, as a file holds them; values outside are clipped."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def on_white(images: Float[Tensor, "*shape 4"]) -> UInt8[Tensor, "*shape 3"]:
    """Straight RGBA as networks and estimators see it: 8 bits, on a background without edges of its own."""
    alphas = images[..., 3:]
    return quantize(images[..., :3] * alphas + 1 - alphas)


def write_png(path: str | Path, image: Float[Tensor, "H W channels"]) -> None:
    """Write RGB or straight RGBA in [0, 1] as an 8-bit PNG; the file appears complete or not at all."""
    with replacing(path) as part:
        Image.fromarray(quantize(image.detach().cpu()).numpy()).save(part, format="PNG")


def resample(channels: Float[Tensor, "M H W D"], width: int, height: int) -> Float[Tensor, "M height width D"]:
    """Resample bilinearly with an antialiasing (triangle) filter, which keeps the range of the values."""
    planar = channels.movedim(-1, 1)
    return F.interpolate(planar, (height, width), mode="bilinear", align_corners=False, antialias=True).movedim(1, -1)


def resize_rgba(images: Float[Tensor, "M H W 4"], width: int, height: int) -> Float[Tensor, "M height width 4"]:
    """Resample straight RGBA through premultiplied colours; fully transparent pixels become black."""
    if images.shape[1:3] == (height, width):
        return images
    return _straight(resample(_premultiplied(images), width, height))


def sample_rgba(image: Float[Tensor, "H W 4"], pixels: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 4"]:
    """Read straight RGBA between its pixels, through premultiplied colours (`sample_image`)."""
    return _straight(sample_image(_premultiplied(image), pixels))


def _premultiplied(images: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    return torch.cat([images[..., :3] * images[..., 3:], images[..., 3:]], dim=-1)


def _straight(premultiplied: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    colors, alphas = premultiplied[..., :3], premultiplied[..., 3:]
    straight = torch.where(alphas > 0, colors / alphas.clamp_min(torch.finfo(alphas.dtype).tiny), 0)
    return torch.cat([straight, alphas], dim=-1).clamp(0, 1)


def linear_rgb(colors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Colours as rendered, clipped to [0, 1], as amounts of light: sRGB (IEC 61966-2-1) decoded."""
    colors = colors.clamp(0, 1)
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def encoded_rgb(light: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The inverse of `linear_rgb`: amounts of light, clipped to [0, 1], as colours.

    >>> encoded_rgb(linear_rgb(torch.tensor([0.02, 0.5, 1.0])))
    tensor([0.0200, 0.5000, 1.0000])
    """
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
