"""Mattes for images without an alpha channel: keying of an even background, GrabCut, or rembg's networks.

Source: Rother et al. 2004, "GrabCut: interactive foreground extraction using iterated graph cuts".
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.priors.base import Identity
from kg4d.priors.progress import counted
from kg4d.priors.settings import MattingConfig
from kg4d.priors.weights import hash_of_weights

FINEST = 512  # px: at full camera resolution GrabCut takes minutes, and its outline is no better
_HOLE = 0.005  # smaller regions of the background's colour inside the object, as a fraction of its area, are highlights
_SPECK = 0.002  # parts smaller than this fraction of the object's largest part are dropped
_REMEDY = "give an image with an alpha channel, masks (matting.kind=files matting.path=FOLDER) or an even background"


class NoForegroundError(InputError):
    """A matte covers next to nothing, or nearly all.

    Attributes:
        frame: Which of the frames, from 0.
    """

    def __init__(self, where: object, what: str, remedy: str, frame: int = 0) -> None:
        super().__init__(where, what, remedy)
        self.frame = frame


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
        return {"opencv": cv2.__version__, "finest": FINEST, "tolerance": config.tolerance, "holes": _HOLE, **shares}

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
        return {"opencv": cv2.__version__, "finest": FINEST}

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


def picked(mattes: Float[Tensor, "T H W 1"], point: tuple[float, float]) -> Float[Tensor, "T H W 1"]:
    """The part of the mattes that holds a point of the first frame, followed through the frames by its overlap.

    Raises:
        InputError: Nothing is opaque there.
    """
    kept, seed = [], np.zeros(mattes.shape[1:3], bool)
    x, y = int(point[0]), int(point[1])
    if not (y < seed.shape[0] and x < seed.shape[1] and mattes[0, y, x, 0] > 0.5):
        remedy = "give a pixel [x, y] of the input's first frame that lies on the object"
        raise InputError("matting.point", f"({point[0]:g}, {point[1]:g}) lies on no object", remedy)
    seed[y, x] = True
    for matte in mattes[..., 0].numpy():
        seed = part_at(matte > 0.5, seed)
        with_rim = cv2.dilate(seed.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        kept.append(torch.from_numpy(np.where(with_rim, matte, 0).astype(np.float32)))
    return torch.stack(kept)[..., None]


def part_at(matte: Bool[np.ndarray, "H W"], seed: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The connected part of a matte with the largest overlap with a seed; nothing if there is none."""
    _, labels = cv2.connectedComponents(matte.astype(np.uint8), connectivity=8)
    shares = np.bincount(labels[seed], minlength=2)
    shares[0] = 0
    return np.asarray(labels == shares.argmax()) if shares.any() else np.zeros_like(matte)


def checked(mattes: Float[Tensor, "T H W 1"]) -> Float[Tensor, "T H W 1"]:
    """Return the mattes if every one of them has a plausible amount of foreground.

    Raises:
        NoForegroundError: In some frame less than 0.2 % or more than 95 % of the image is foreground.
    """
    fractions = (mattes > 0.5).float().mean(dim=(1, 2, 3))
    for frame, fraction in enumerate(fractions.tolist()):
        if not 0.002 < fraction < 0.95:
            what = f"no clear foreground: {fraction:.1%} of the picture"
            raise NoForegroundError("matting", what, _REMEDY, frame)
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
    """All pixels that are not connected to the border through the background's colour, less holes; GrabCut refines it.

    Where GrabCut disagrees, the key is kept as it is.
    """
    like_border = (np.abs(picture - color).max(-1) <= config.tolerance).astype(np.uint8)
    count, labels = cv2.connectedComponents(like_border, connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.setdiff1d(edge, [0]))
    enclosed = np.setdiff1d(np.arange(1, count), edge)
    holes = enclosed[_are_holes(picture, labels, enclosed, picture[outside].mean(0), int((~outside).sum()))]
    key = ~(outside | np.isin(labels, holes))
    if not key.any():
        return key
    mask = np.where(key, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    refined = grabcut(picture, mask)
    overlap = (key & refined).sum() / max(1, (key | refined).sum())
    return without_specks(refined if overlap > config.agreement else key)


def _are_holes(
    picture: UInt8[np.ndarray, "H W 3"],
    labels: Int[np.ndarray, "H W"],
    enclosed: Int[np.ndarray, " n"],
    color: Float[np.ndarray, " 3"],
    area: int,
) -> Bool[np.ndarray, " n"]:
    """Which enclosed regions in the colour of the background show the background, and not a part of the object.

    The background seen through the object has its very colour: the mean of the region is within a level of it, while a
    white shirt is shaded. Regions smaller than `_HOLE` of the object's area are highlights.
    """
    if not len(enclosed):
        return np.zeros(0, bool)
    sizes = np.bincount(labels.ravel(), minlength=enclosed.max() + 1)[enclosed]
    sums = [np.bincount(labels.ravel(), picture[..., c].ravel(), enclosed.max() + 1)[enclosed] for c in range(3)]
    off = np.abs(np.stack(sums, -1) / sizes[:, None] - color).max(-1)
    return np.asarray((off <= 1) & (sizes > _HOLE * area))


def without_specks(matte: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
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
    found = grabcut(picture, mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    if count < 2:
        return found
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.max() < 0.5 * areas.sum():
        raise InputError("matting", "no clear foreground: what stands out is scattered", _REMEDY)
    return np.asarray(labels == 1 + int(areas.argmax()))


def grabcut(
    picture: UInt8[np.ndarray, "H W 3"], mask: UInt8[np.ndarray, "H W"], enlarge: bool = False
) -> Bool[np.ndarray, "H W"]:
    """Run GrabCut at no more than `FINEST` px.

    Args:
        picture: RGB.
        mask: OpenCV's `GC_*` label of each pixel.
        enlarge: Run it at `FINEST` px also where the picture is smaller: thin parts are kept.

    Returns:
        The object.
    """
    height, width = mask.shape
    scale = FINEST / max(height, width) if enlarge else min(1.0, FINEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale <= 1 else cv2.INTER_CUBIC)
    labels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    object_kinds = (cv2.GC_FGD, cv2.GC_PR_FGD)
    if len(set(np.isin(labels, object_kinds).flat)) == 2:  # GrabCut needs samples of both
        cv2.setRNGSeed(0)  # GrabCut's clustering draws from OpenCV's global generator
        models = np.zeros((1, 65)), np.zeros((1, 65))
        labels, _, _ = cv2.grabCut(small, labels, (0, 0, 0, 0), *models, 5, cv2.GC_INIT_WITH_MASK)
    found = np.isin(labels, object_kinds).astype(np.float32)
    back = cv2.INTER_LINEAR if scale <= 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(found, (width, height), interpolation=back) > 0.5)
