"""Mattes by a network that names the object, sharpened by GrabCut; where the camera is still, the motion says where.

Source: Qin et al. 2020, "U²-Net: Going deeper with nested U-structure for salient object detection", in its small
variant, which OpenCV runs.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from kg4d.data.images import quantize
from kg4d.errors import InputError
from kg4d.networks.weights import WEIGHTS, FileSource, pinned_file
from kg4d.priors.base import Identity
from kg4d.priors.matting import FINEST, checked, grabcut, part_at, without_specks
from kg4d.priors.progress import counted

WEIGHT = "u2netp"
_SIDE = 320  # px: the size of the pictures that the network was trained on
# Of the training pictures.
_MEANS, _SCALES = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
_FINAL = "1959"  # the layer of the graph that fuses all scales
_SURE_OBJECT, _OBJECT, _SURE_BACKGROUND = 0.95, 0.3, 0.005  # GrabCut decides between the first and the last
_MARGIN = 0.1  # around a box, as a fraction of its longer side

Picture = UInt8[np.ndarray, "H W 3"]
Soft = Float[np.ndarray, "H W"]


class Box(NamedTuple):
    """A part of a picture: rows `top` to `bottom`, columns `left` to `right`, the last excluded."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class NetworkMatting:
    """`Matting` by U²-Net-p on the whole picture, then on the box of what it found there; GrabCut sharpens it.

    Attributes:
        point: A pixel (x, y) of the first frame on the object; None takes what stands out most.

    Raises:
        InputError: The weights are not there.
    """

    point: tuple[float, float] | None = None
    name = "matting-network"

    def __post_init__(self) -> None:
        """Look for the weights, so that a fit does not fail later."""
        pinned_file(WEIGHT)

    def identity(self) -> Identity:
        """The weights, the version of OpenCV and the point."""
        return _identity() | ({} if self.point is None else {"x": self.point[0], "y": self.point[1]})

    def __call__(self, rgb: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 1"]:
        """Mattes of 0 and 1.

        Raises:
            InputError: There is no clear foreground, or nothing stands out at the point.
        """
        pictures, mattes = quantize(rgb).numpy(), list[Tensor]()
        seed: Bool[np.ndarray, "H W"] | None = None
        if self.point is not None:
            seed = np.zeros(pictures[0].shape[:2], bool)
            seed[min(int(self.point[1]), seed.shape[0] - 1), min(int(self.point[0]), seed.shape[1] - 1)] = True
        for picture in counted(pictures, len(pictures), "frames"):
            matte = _sharpened(picture, _found(picture, seed))
            if seed is not None and (part := part_at(matte, seed)).any():
                seed = part
            mattes.append(torch.from_numpy(matte).float()[..., None])
        return checked(torch.stack(mattes))


@dataclass(frozen=True)
class StillCameraMatting:
    """`Matting` where the camera is still: the median over time is the background, and what differs from it moves.

    U²-Net-p looks at the box of what moves and completes the parts that rest; GrabCut sharpens.

    Attributes:
        tolerance: Largest difference between a pixel of the background and its colour over time, in [0, 255].

    Raises:
        InputError: The weights are not there.
    """

    tolerance: float
    name = "matting-still"

    def __post_init__(self) -> None:
        """Look for the weights, so that a fit does not fail later."""
        pinned_file(WEIGHT)

    def identity(self) -> Identity:
        """The weights, the version of OpenCV and the tolerance."""
        return _identity() | {"tolerance": self.tolerance}

    def __call__(self, rgb: Float[Tensor, "T H W 3"]) -> Float[Tensor, "T H W 1"]:
        """Mattes of 0 and 1.

        Raises:
            InputError: There is no clear foreground.
        """
        pictures = quantize(rgb).numpy()
        moved = moved_pixels(pictures, self.tolerance)
        anywhere, mattes = without_specks(np.asarray(moved.any(0))), list[Tensor]()
        for picture, differs in zip(counted(pictures, len(pictures), "frames"), moved, strict=True):
            here = without_specks(differs)
            box = _box_of(here if here.any() else anywhere)
            soft = np.zeros(here.shape, np.float32) if box is None else _inside(picture, box)
            labels = _labels(soft)
            labels[here & (labels != cv2.GC_FGD)] = cv2.GC_PR_FGD
            matte = without_specks(grabcut(picture, labels, enlarge=True))
            mattes.append(torch.from_numpy(matte).float()[..., None])
        return checked(torch.stack(mattes))


def moved_pixels(pictures: UInt8[np.ndarray, "T H W 3"], tolerance: float) -> Bool[np.ndarray, "T H W"]:
    """Where each frame differs by more than the tolerance from the median over all frames."""
    background = np.median(pictures, axis=0).astype(np.int16)
    return np.stack([np.abs(picture - background).max(-1) > tolerance for picture in pictures])


def still_share(pictures: UInt8[np.ndarray, "T H W 3"], tolerance: float) -> float:
    """Share of the border's pixels, over all frames, that keep their colour: near 1 where the camera is still."""
    top, bottom, left, right = pictures[:, :1], pictures[:, -1:], pictures[:, :, :1], pictures[:, :, -1:]
    strips = [top, bottom, left.transpose(0, 2, 1, 3), right.transpose(0, 2, 1, 3)]
    return 1 - float(np.concatenate([moved_pixels(strip, tolerance) for strip in strips], axis=-1).mean())


def _identity() -> dict[str, str | int | float | bool]:
    source = WEIGHTS[WEIGHT]
    assert isinstance(source, FileSource)
    steps = f"{_SIDE} {_SURE_OBJECT} {_OBJECT} {_SURE_BACKGROUND} {_MARGIN} {FINEST}"
    return {"weights": source.member_sha256, "opencv": cv2.__version__, "steps": steps}


@cache
def _network() -> Any:
    return cv2.dnn.readNetFromONNX(str(pinned_file(WEIGHT)))


def salience(picture: Picture) -> Soft:
    """How much each pixel belongs to what stands out, in [0, 1]: the mean over the picture and its mirror image."""
    mirrored = _answer(np.ascontiguousarray(picture[:, ::-1]))[:, ::-1]
    return np.asarray((_answer(picture) + mirrored) / 2)


def _answer(picture: Picture) -> Soft:
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    normal = (small / max(float(small.max()), 1.0) - _MEANS) / _SCALES
    network = _network()
    network.setInput(np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32))
    answer = network.forward(_FINAL)[0, 0]
    return np.asarray(cv2.resize(answer, (width, height), interpolation=cv2.INTER_LINEAR)).clip(0, 1)


def _found(picture: Picture, seed: Bool[np.ndarray, "H W"] | None) -> Soft:
    """Mean salience in the whole picture and in the box of what that shows; with a seed, of what overlaps it alone.

    Raises:
        InputError: Nothing stands out at the seed.
    """
    height, width = picture.shape[:2]
    looked = [Box(0, height, 0, width)]
    if seed is not None:  # what stands out less than something else is looked for in smaller parts of the picture
        looked += [_window(seed, round(share * max(height, width))) for share in (0.5, 0.25)]
    for box in looked:
        soft = _inside(picture, box)
        part = soft > _OBJECT if seed is None else part_at(soft > _OBJECT, seed)
        inner = _box_of(part)
        if inner is not None:
            soft = (soft + _inside(picture, inner)) / 2
            return soft if seed is None else _without_others(soft, inner, seed)
    if seed is None:
        return np.zeros((height, width), np.float32)
    y, x = np.argwhere(seed).mean(0).astype(int).tolist()
    remedy = "give a pixel [x, y] of the input's first frame that lies on the object, or masks (matting.path=FOLDER)"
    raise InputError("matting.point", f"nothing stands out at ({x}, {y})", remedy)


def _without_others(soft: Soft, box: Box, seed: Bool[np.ndarray, "H W"]) -> Soft:
    """Salience inside a box, without the parts that a seed does not overlap."""
    kept = np.zeros_like(soft)
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    kept[rows, columns] = soft[rows, columns]
    kept[(soft > _OBJECT) & ~part_at(soft > _OBJECT, seed)] = 0
    return kept


def _inside(picture: Picture, box: Box) -> Soft:
    """Salience of a part of the picture, 0 elsewhere."""
    soft = np.zeros(picture.shape[:2], np.float32)
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    soft[rows, columns] = salience(np.ascontiguousarray(picture[rows, columns]))
    return soft


def _box_of(part: Bool[np.ndarray, "H W"]) -> Box | None:
    """The box of a part with a margin; None if there is nothing."""
    if not part.any():
        return None
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    margin, (height, width) = round(_MARGIN * max(bottom - top, right - left)), part.shape
    return Box(max(0, top - margin), min(height, bottom + margin), max(0, left - margin), min(width, right + margin))


def _window(seed: Bool[np.ndarray, "H W"], side: int) -> Box:
    """A square around the middle of a seed, moved into the picture."""
    (height, width), (y, x) = seed.shape, np.argwhere(seed).mean(0).astype(int).tolist()
    rows, columns = min(side, height), min(side, width)
    top = min(max(0, y - rows // 2), height - rows)
    left = min(max(0, x - columns // 2), width - columns)
    return Box(top, top + rows, left, left + columns)


def _labels(soft: Soft) -> UInt8[np.ndarray, "H W"]:
    labels = np.full(soft.shape, cv2.GC_BGD, np.uint8)
    labels[soft > _SURE_BACKGROUND] = cv2.GC_PR_BGD
    labels[soft > _OBJECT] = cv2.GC_PR_FGD
    labels[soft > _SURE_OBJECT] = cv2.GC_FGD
    return labels


def _sharpened(picture: Picture, soft: Soft) -> Bool[np.ndarray, "H W"]:
    return without_specks(grabcut(picture, _labels(soft), enlarge=True))
