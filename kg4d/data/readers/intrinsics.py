"""Intrinsics and lenses in a `transforms_*.json`, by the keys of nerfstudio and instant-ngp."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.geometry.lenses import Lens
from kg4d.utils.reading import is_finite, shown

_FAR = 0.2  # of a side: no lens has its principal point that far from the middle, unless its image was cropped
_OTHER_SIZE = 0.05  # relative difference of two widths that are not the same one
_GIVE = "give w and h, the size in px of the images that fl_x, cx and cy are for"

_COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")  # in OpenCV's order
_FISHEYE = ("k1", "k2", "k3", "k4")
_PINHOLE, _BROWN = "PINHOLE", "OPENCV"
_MODELS: dict[str, tuple[str, ...]] = {  # the coefficients of each; the names are COLMAP's
    _PINHOLE: (),
    "SIMPLE_PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    _BROWN: ("k1", "k2", "p1", "p2", "k3"),
    "FULL_OPENCV": _COEFFICIENTS,
    "SIMPLE_RADIAL_FISHEYE": ("k1",),
    "RADIAL_FISHEYE": ("k1", "k2"),
    "OPENCV_FISHEYE": _FISHEYE,
}
_NO_PERSPECTIVE = ("ftheta_p0", "latlong", "equirectangular", "orthographic")  # instant-ngp's other cameras


@dataclass(frozen=True)
class Intrinsics:
    """What a file says of the camera of one image.

    Attributes:
        path: The file.
        size: (w, h) that the lengths are for, px; None where the file does not say.
        focal: Focal lengths in x and y, px, or None.
        angle: Angle of view in x, radians, where it stands beside `focal` or in its place; else None.
        center: (x, y) of the principal point, px; None for a coordinate in the middle.
        lens: What bends the rays, or None.
    """

    path: Path
    size: tuple[float, float] | None
    focal: tuple[float | None, float | None]
    angle: float | None
    center: tuple[float | None, float | None]
    lens: Lens | None

    @classmethod
    def read(cls, path: Path, index: int, table: Mapping[str, Any], entry: Mapping[str, Any]) -> "Intrinsics":
        """Read the keys of an entry of `frames`, and those of the file that the entry does not have.

        Args:
            path: The file.
            index: Of the entry.
            table: The file.
            entry: The entry.

        Raises:
            InputError: A key is missing or malformed, or the camera is of no known model.
        """
        keys = _Keys(path, index, table, entry)
        center = keys.optional("cx"), keys.optional("cy")
        return cls(path, _size(keys), _focal(keys), _angle(keys), center, _lens(keys))

    def scales(self, width: int, height: int) -> tuple[float, float]:
        """How much larger images of `width` x `height` px are than those that the numbers are for.

        Raises:
            InputError: Those have another shape.
        """
        if self.size is None:
            return 1.0, 1.0
        w, h = self.size
        if abs(w * height - h * width) > max(w, h) / 2:  # half a pixel, by rounding
            what = f"is {w:g}" + (f" and h {h:g}" if h != w else "") + f", the images are {width} x {height}"
            raise InputError(f"{self.path}: w", what, "correct either")
        return width / w, height / h

    def matrix(self, width: int, height: int) -> Float[Tensor, "3 3"]:
        """The intrinsics of images of `width` x `height` px.

        Raises:
            InputError: They look like those of images of another size.
        """
        across, down = self.scales(width, height)
        (focal_x, focal_y), (x, y) = self.focal, self.center
        if focal_x is not None:
            focal_y = (focal_x if focal_y is None else focal_y) * down
            focal_x *= across
        elif self.angle is not None:
            focal_x = 0.5 * width / math.tan(0.5 * self.angle)
            focal_y = focal_x if focal_y is None else focal_y * down
        center_x, center_y = width / 2 if x is None else x * across, height / 2 if y is None else y * down
        if self.size is None or (across, down) != (1, 1):
            self._refuse_another_size(center_x, center_y, width, height)
        return torch.tensor([[focal_x, 0, center_x], [0, focal_y, center_y], [0, 0, 1]])

    def _refuse_another_size(self, x: float, y: float, width: int, height: int) -> None:
        if max(abs(x / width - 0.5), abs(y / height - 0.5)) > _FAR:
            what = f"({x:g}, {y:g}), the principal point, lies far from the middle of images of {width} x {height}"
            if self.size is None:
                what += f": the intrinsics look like those of {2 * x:.0f} x {2 * y:.0f}"
            raise InputError(f"{self.path}: cx, cy", what, _GIVE)
        if self.size is None and self.focal[0] is not None and self.angle is not None:
            other = 2 * self.focal[0] * math.tan(0.5 * self.angle)
            if abs(other / width - 1) > _OTHER_SIZE:
                what = f"and camera_angle_x are those of images {other:.0f} px wide, the images are {width} x {height}"
                raise InputError(f"{self.path}: fl_x", what, _GIVE)

    def off_center(self, width: int, height: int) -> bool:
        """Whether the principal point lies far from the middle, as in an image that was cropped."""
        K = self.matrix(width, height)
        return bool((K[:2, 2] / torch.tensor([width, height]) - 0.5).abs().max() > _FAR)


class _Keys:
    """The keys of an entry of `frames`, over those of its file."""

    def __init__(self, path: Path, index: int, table: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
        self._path, self._index, self._table, self._entry = path, index, table, entry

    def __contains__(self, key: str) -> bool:
        return key in self._entry or key in self._table

    def value(self, key: str) -> Any:
        return self._entry[key] if key in self._entry else self._table.get(key)

    def where(self, key: str) -> str:
        return f"{self._path}: frames[{self._index}].{key}" if key in self._entry else f"{self._path}: {key}"

    def together(self, one: str, other: str) -> bool:
        """Whether the entry, or the file, has both."""
        return (one in self._entry) == (other in self._entry)

    def number(self, key: str) -> float:
        value = self.value(key)
        if not is_finite(value):
            raise InputError(self.where(key), f"must be a finite number, not {shown(value)}", "correct the file")
        return float(value)

    def optional(self, key: str) -> float | None:
        return self.number(key) if key in self else None


def _size(keys: _Keys) -> tuple[float, float] | None:
    given = {key: keys.number(key) for key in ("w", "h") if key in keys}
    for key, value in given.items():
        if value <= 0:
            raise InputError(keys.where(key), f"must be positive, not {value:g}", "give the size of the images in px")
    if not given:
        return None
    w, h = (given.get(key, next(iter(given.values()))) for key in ("w", "h"))
    return w, h


def _focal(keys: _Keys) -> tuple[float | None, float | None]:
    focal_x, focal_y = keys.optional("fl_x"), keys.optional("fl_y")
    if focal_x is None and "camera_angle_x" not in keys:
        raise InputError(keys.where("camera_angle_x"), "is missing, and so is fl_x", "give one of them")
    if any(focal is not None and focal <= 0 for focal in (focal_x, focal_y)):
        raise InputError(keys.where("fl_x"), "must be positive", "give the focal length in pixels")
    return focal_x, focal_y


def _angle(keys: _Keys) -> float | None:
    """The angle of view; None where it does not belong to a focal length that is given, or is none."""
    if "fl_x" in keys:
        angle = keys.value("camera_angle_x")
        told = keys.together("fl_x", "camera_angle_x") and is_finite(angle) and 0 < angle < math.pi
        return float(angle) if told else None
    angle = keys.number("camera_angle_x")
    if not 0 < angle < math.pi:
        raise InputError(keys.where("camera_angle_x"), f"is {angle}", "give the field of view in radians")
    return angle


def _lens(keys: _Keys) -> Lens | None:
    values = {name: keys.number(name) for name in _COEFFICIENTS if name in keys}
    known = f"known models: {', '.join(_MODELS)}"
    for flag in _NO_PERSPECTIVE:
        if keys.value(flag) is not None and keys.value(flag) is not False:  # 0 is a coefficient
            raise InputError(keys.where(flag), "names a camera that is not known", known)
    model = keys.value("camera_model")
    if model is None:
        model = "OPENCV_FISHEYE" if keys.value("is_fisheye") else _BROWN
    elif not isinstance(model, str) or model not in _MODELS:
        raise InputError(keys.where("camera_model"), f"{shown(model)} is not known", known)
    for name, value in values.items():
        if value and name not in _MODELS[model]:
            what = f"is {value:g}, which a camera of the model {model} does not have"
            remedy = "name its camera_model: FULL_OPENCV has k1 to k6, p1 and p2, OPENCV_FISHEYE k1 to k4"
            raise InputError(keys.where(name), what, remedy)
    fisheye = model.endswith("FISHEYE")
    lens = Lens(fisheye, tuple(values.get(name, 0.0) for name in (_FISHEYE if fisheye else _COEFFICIENTS)))
    return lens if lens.bends else None
