"""Mattes for images without an alpha channel: keying of an even background, GrabCut elsewhere, or rembg's network.

Source: Rother et al. 2004, "GrabCut: interactive foreground extraction using iterated graph cuts".
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.priors.base import Identity
from kg4d.priors.progress import counted
from kg4d.priors.weights import hash_of_weights

_FINEST = 512  # px: at full camera resolution GrabCut takes minutes, and its outline is no better
_SPECK = 0.002  # parts smaller than this fraction of the object's largest part are dropped
_REMEDY = "give an image with an alpha channel, masks (matting.kind=files matting.path=FOLDER) or an even background"


class MattingKind(StrEnum):
    """Where the matte comes from."""

    AUTO = "auto"  # the alpha channel where there is one, else key
    ALPHA = "alpha"  # the alpha channel of the file
    KEY = "key"  # an even background is keyed; where it is not even, GrabCut
    GRABCUT = "grabcut"
    REMBG = "rembg"
    FILES = "files"


@dataclass
class MattingConfig:
    """How the object is separated from its background.

    Attributes:
        kind: Where the matte comes from.
        path: For `kind: files`: a folder of masks, one per frame of the input, in the order of their names.
        tolerance: Largest difference between a pixel of an even background and its colour, in [0, 255].
        border_share: The background counts as even if this fraction of the border's pixels is within the tolerance.
        agreement: GrabCut's refinement of a key is kept if their intersection over union is above this.
        model: For `kind: rembg`: name of its network.
    """

    kind: MattingKind = MattingKind.AUTO
    path: str | None = None
    tolerance: float = 12.0
    border_share: float = 0.97
    agreement: float = 0.9
    model: str = "u2net"


@dataclass(frozen=True)
class KeyMatting:
    """`Matting` by the colour of the border, refined by GrabCut; GrabCut alone where the border is not of one colour.

    Attributes:
        config: Tolerances.
    """

    config: MattingConfig
    name = "matting-key"

    def identity(self) -> Identity:
        """The version of OpenCV, and the tolerances."""
        config = self.config
        shares = {"border_share": config.border_share, "agreement": config.agreement, "specks": _SPECK}
        return {"opencv": cv2.__version__, "finest": _FINEST, "tolerance": config.tolerance, **shares}

    def has_even_background(self, rgb: Float[Tensor, "T H W 3"]) -> bool:
        """Whether the border of every image has a single colour; otherwise GrabCut guesses the object."""
        return all(_border_color(picture, self.config) is not None for picture in quantize(rgb).numpy())

    def __call__(self, rgb: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 1"]:
        """Mattes of 0 and 1.

        Raises:
            InputError: There is no clear foreground.
        """
        pictures, even, mattes = quantize(rgb).numpy(), self.has_even_background(rgb), []
        for picture in counted(pictures, len(pictures), "frames"):
            color = _border_color(picture, self.config) if even else None
            matte = _grabcut_from_border(picture) if color is None else _keyed(picture, color, self.config)
            mattes.append(torch.from_numpy(matte).float()[..., None])
        return checked(torch.stack(mattes))


@dataclass(frozen=True)
class GrabCutMatting:
    """`Matting` by GrabCut, which takes a strip along the border for background, at no more than 512 px."""

    name = "matting-grabcut"

    def identity(self) -> Identity:
        """The version of OpenCV, and the largest image size."""
        return {"opencv": cv2.__version__, "finest": _FINEST}

    def __call__(self, rgb: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 1"]:
        """Mattes of 0 and 1.

        Raises:
            InputError: There is no clear foreground.
        """
        mattes = [_grabcut_from_border(picture) for picture in counted(quantize(rgb).numpy(), len(rgb), "frames")]
        return checked(torch.stack([torch.from_numpy(matte).float()[..., None] for matte in mattes]))


@dataclass(frozen=True)
class RembgMatting:
    """`Matting` by the networks of rembg, which fetches their weights itself.

    Attributes:
        model: Name of the network.

    Raises:
        InputError: rembg is not installed, or the network is not available.
    """

    model: str
    name = "matting-rembg"

    def __post_init__(self) -> None:
        """Load the network, so that a fit does not fail here after hours."""
        _rembg_session(self.model)

    def identity(self) -> Identity:
        """The name of the network and, if it is a single file, the hash of its content."""
        file = Path(str(_rembg_session(self.model).download_models()))  # already downloaded: this returns the path
        return {"model": self.model, "weights": hash_of_weights(file) if file.is_file() else "unknown"}

    def __call__(self, rgb: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 1"]:
        """Soft mattes.

        Raises:
            InputError: There is no clear foreground.
        """
        import rembg

        session = _rembg_session(self.model)
        pictures = counted(quantize(rgb).numpy(), len(rgb), "frames")
        mattes = [np.array(rembg.remove(picture, session=session, only_mask=True)) for picture in pictures]
        return checked(torch.stack([torch.from_numpy(matte).float()[..., None] / 255 for matte in mattes]))


@cache
def _rembg_session(model: str) -> Any:
    try:
        import rembg
    except ImportError as error:
        remedy = 'pip install "kg4d[rembg]", or choose another matting.kind'
        raise InputError("matting.kind", "rembg is not installed", remedy) from error
    try:
        return rembg.new_session(model)
    except Exception as error:  # whatever the library raises for names, files and the network
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        remedy = "name a network of rembg, or run once where there is a network"
        raise InputError("matting.model", f"{model} cannot be had: {reason}", remedy) from error


def checked(mattes: Float[Tensor, "T H W 1"]) -> Float[Tensor, "T H W 1"]:
    """Return the mattes if every one of them has a plausible amount of foreground.

    Raises:
        InputError: In some frame less than 0.2 % or more than 95 % of the image is foreground.
    """
    fractions = (mattes > 0.5).float().mean(dim=(1, 2, 3))
    for frame, fraction in enumerate(fractions.tolist()):
        if not 0.002 < fraction < 0.95:
            which = f" in frame {frame}" if len(mattes) > 1 else ""
            raise InputError("matting", f"no clear foreground{which}: {fraction:.1%} of the picture", _REMEDY)
    return mattes


def _border(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "n 3"]:
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


def _border_color(picture: UInt8[np.ndarray, "H W 3"], config: MattingConfig) -> Float[np.ndarray, " 3"] | None:
    """The colour of the border; None if too little of it is near a single colour."""
    border = _border(picture).astype(np.float64)
    color: Any = np.median(border, axis=0)
    near = np.abs(border - color).max(-1) <= config.tolerance
    return color if near.mean() >= config.border_share else None


def _keyed(
    picture: UInt8[np.ndarray, "H W 3"], color: Float[np.ndarray, " 3"], config: MattingConfig
) -> Bool[np.ndarray, "H W"]:
    """All pixels that are not connected to the border through the background's colour, refined by GrabCut if it agrees.

    Where the two disagree, the key is kept as it is.
    """
    like_border = (np.abs(picture - color).max(-1) <= config.tolerance).astype(np.uint8)
    _, labels = cv2.connectedComponents(like_border, connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    key = ~np.isin(labels, np.setdiff1d(edge, [0]))
    if not key.any():
        return key
    mask = np.where(key, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    refined = _grabcut(picture, mask, cv2.GC_INIT_WITH_MASK)
    overlap = (key & refined).sum() / max(1, (key | refined).sum())
    return _without_specks(refined if overlap > config.agreement else key)


def _without_specks(matte: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The matte without tiny parts, such as video codecs leave beside fast limbs."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(matte.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    large = areas > _SPECK * areas[1:].max(initial=0)
    large[0] = False  # the background
    return np.asarray(large[labels])


def _grabcut_from_border(picture: UInt8[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "H W"]:
    """The largest connected part of what differs from a strip of 3 % along the border."""
    height, width = picture.shape[:2]
    margin = max(1, round(0.03 * min(height, width)))
    mask = np.full((height, width), cv2.GC_BGD, np.uint8)
    mask[margin:-margin, margin:-margin] = cv2.GC_PR_FGD
    found = _grabcut(picture, mask, cv2.GC_INIT_WITH_MASK)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    if count < 2:
        return found
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.max() < 0.5 * areas.sum():
        raise InputError("matting", "no clear foreground: what stands out is scattered", _REMEDY)
    return np.asarray(labels == 1 + int(areas.argmax()))


def _grabcut(picture: UInt8[np.ndarray, "H W 3"], mask: UInt8[np.ndarray, "H W"], mode: int) -> Bool[np.ndarray, "H W"]:
    """Run GrabCut at no more than `_FINEST` px."""
    height, width = mask.shape
    shrink = min(1.0, _FINEST / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    object_kinds = (cv2.GC_FGD, cv2.GC_PR_FGD)
    if len(set(np.isin(labels, object_kinds).flat)) == 2:  # GrabCut needs samples of both
        cv2.setRNGSeed(0)  # GrabCut's clustering draws from OpenCV's global generator
        models = np.zeros((1, 65)), np.zeros((1, 65))
        labels, _, _ = cv2.grabCut(small, labels, (0, 0, 0, 0), *models, 5, mode)
    found = np.isin(labels, object_kinds).astype(np.float32)
    return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5)
