"""Reading NumPy archives from other programs, with every shape and value checked."""

import errno
import logging
import math
import zipfile
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from kg4d.errors import InputError
from kg4d.utils.reading import regular

_log = logging.getLogger(__name__)

Array: TypeAlias = NDArray[Any]

_LARGEST = 2 << 30  # bytes that all arrays of an archive may take up in memory


def check_sizes(path: Path) -> None:
    """See what an archive says of its arrays before any of them is unpacked: a few kB may unpack to terabytes.

    Raises:
        OSError: It is no regular file, or its arrays are too large.
        ValueError: It holds something else than arrays.
    """
    total = 0
    with zipfile.ZipFile(regular(path)) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            total += max(math.prod(shape) * dtype.itemsize, member.file_size)
            if total > _LARGEST:
                raise OSError(errno.EFBIG, f"Its arrays take up more than {_LARGEST >> 30} GB", str(path))


class Archive:
    """The arrays of one `.npz` file. Axes have names; the first array with an axis fixes its size for the others.

    Every method raises an `InputError` that names the file and the array.
    """

    def __init__(self, path: Path, known: Collection[str], **sizes: int) -> None:
        """Read the file.

        Args:
            path: The file.
            known: Names that its arrays may have. Others are named in the log, and refused where they look misspelt.
            **sizes: Sizes of axes that are known beforehand.
        """
        self._path = path
        self._sizes = sizes
        try:
            check_sizes(path)
            with np.load(path, allow_pickle=False) as archive:
                self._arrays: dict[str, Array] = {name: archive[name] for name in archive.files}
        except Exception as error:  # whatever NumPy and zipfile make of bytes that are no archive
            what = "is no readable .npz archive of plain arrays"
            if isinstance(error, OSError) and error.strerror:
                what = f"is no readable .npz archive: {error.strerror.lower()}"
            raise InputError(path, what, "save it again with numpy.savez_compressed") from error
        self._name_others(known)

    def _name_others(self, known: Collection[str]) -> None:
        others = [name for name in self._arrays if name not in known]
        for name in others:
            meant = get_close_matches(name, [other for other in known if other not in self._arrays], n=1, cutoff=0.8)
            if meant:
                raise self.error(name, "is no array that is read", f"did you mean {meant[0]}?")
        if others:
            _log.info("%s: not read: %s", self._path, ", ".join(others))

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def size(self, axis: str) -> int:
        """The size of an axis that was given, or that an array taken before has."""
        return self._sizes[axis]

    def error(self, name: str, what: str, remedy: str) -> InputError:
        """An `InputError` about one array."""
        return InputError(f"{self._path}: {name}", what, remedy)

    def take(self, name: str, axes: str) -> Array:
        """Take an array, checking its shape: `axes` are names and numbers, for example "V T J 2"."""
        if name not in self._arrays:
            raise self.error(name, "is missing", f"add an array of shape ({axes})")
        array, letters = self._arrays[name], axes.split()
        wanted = [int(axis) if axis.isdigit() else self._sizes.get(axis) for axis in letters]
        if array.ndim != len(wanted) or any(size not in (None, n) for size, n in zip(wanted, array.shape, strict=True)):
            known = ", ".join(f"{axis} = {self._sizes[axis]}" for axis in letters if axis in self._sizes)
            what = f"has the shape {array.shape}, not ({axes})" + (f" with {known}" if known else "")
            raise self.error(name, what, "make it agree with the other arrays and the images")
        self._sizes.update({axis: n for axis, n in zip(letters, array.shape, strict=True) if not axis.isdigit()})
        return array

    def words(self, name: str, axes: str) -> tuple[str, ...]:
        """Take an array of names, checking its shape and that all differ."""
        array = self.take(name, axes)
        if array.dtype.kind != "U":
            raise self.error(name, f"holds {array.dtype}, not text", "save an array of str")
        words = tuple(str(word) for word in array.reshape(-1))
        if not all(word.strip() for word in words) or len(set(words)) < len(words):
            raise self.error(name, "holds empty names, or one name twice", "give each its own")
        return words

    def numbers(self, name: str, axes: str) -> Float[Tensor, "..."]:
        """Take an array as float32, checking its shape."""
        array = self.take(name, axes)
        if array.dtype.kind not in "fbiu":
            raise self.error(name, f"holds {array.dtype}, not numbers", "save numbers")
        return torch.from_numpy(array.astype(np.float32))

    def weights(self, name: str, axes: str) -> Float[Tensor, "..."]:
        """Take an array of confidences, checking its shape and that they are in [0, 1]."""
        values = self.numbers(name, axes)
        if not ((values >= 0) & (values <= 1)).all():
            raise self.error(name, "holds NaN or values outside [0, 1]", "give confidences in [0, 1]")
        return values

    def where_seen(self, name: str, axes: str, weights: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Take an array of vectors, checking that they are finite where `weights` is positive.

        Args:
            name: Name of the array.
            axes: Its shape, as in `take`.
            weights: Confidence of each vector; vectors of weight 0 that are not finite become 0.
        """
        values = self.numbers(name, axes)
        bad = (weights > 0) & ~values.isfinite().all(-1)
        if bad.any():
            what = f"holds NaN or infinity at {bad.nonzero()[0].tolist()}, which counts as seen"
            raise self.error(name, what, "correct it or mark it as not seen")
        return torch.where(values.isfinite(), values, 0)
