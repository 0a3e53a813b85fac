"""Priors that a person supplies as files: masks, views, flow and keypoints, in pixels of the input; arrays."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import read_image, read_mask
from kg4d.data.readers.tracks import read_flow, read_keypoints
from kg4d.data.records import Flow, Keypoints
from kg4d.data.sizes import Size
from kg4d.data.videos import Clip, image_files, natural_key
from kg4d.errors import InputError
from kg4d.priors.base import Identity
from kg4d.utils.reading import regular


@dataclass(frozen=True)
class SuppliedFiles:
    """A `Provider` that stands for files of a person; only their hash is recorded.

    Attributes:
        name: Name of the provider.
        path: File or folder.
    """

    name: str
    path: Path

    def identity(self) -> Identity:
        """The hash of the files' content."""
        return {"sha256": hash_of(self.path)}


def require_path(key: str, path: str | None) -> Path:
    """The file or folder that a setting names.

    Args:
        key: The dotted key of the setting, for errors.
        path: Its value.

    Raises:
        InputError: The setting is empty, or there is no such file or folder.
    """
    if path is None:
        raise InputError(key, "names no file", f"give {key}=<path>")
    if not Path(path).exists():
        raise InputError(key, f"no such file or folder: {path}", "check the path")
    return Path(path)


def hash_of(path: Path) -> str:
    """SHA-256 of the name and content of a file, or of all files directly inside a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def files_in_order(folder: Path, suffix: str) -> list[Path]:
    """The files in a folder with that ending, in any case, by the numbers in their names."""
    found = [file for file in folder.iterdir() if file.suffix.lower() == suffix]
    return sorted(found, key=lambda file: natural_key(file.name))


def read_npy(file: Path) -> np.ndarray:
    """The array in a file that numpy.save wrote; no object is unpickled.

    Raises:
        InputError: It cannot be read, or is an archive.
    """
    try:
        values = np.load(regular(file), allow_pickle=False)
    except Exception as error:  # whatever NumPy makes of bytes that are no array
        raise InputError(file, "is no readable .npy of plain numbers", "save it again with numpy.save") from error
    if not isinstance(values, np.ndarray):
        raise InputError(file, "is an archive", "save one array a frame with numpy.save")
    return values


def read_numbers(file: Path, values: np.ndarray, remedy: str) -> Float[Tensor, "*shape"]:
    """Real numbers from a file, in 32 bits.

    Args:
        file: For errors.
        values: Integers or floats.
        remedy: What to do about values that are none.

    Raises:
        InputError: There is NaN or infinity, or a number beyond those of 32 bits.
    """
    if not np.isfinite(values).all():
        raise InputError(file, "holds NaN or infinity", remedy)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        found = torch.from_numpy(values.astype(np.float32))
    if not bool(found.isfinite().all()):
        raise InputError(file, "holds numbers beyond those of 32 bits", "choose another unit")
    return found


def read_masks(folder: Path, clip: Clip) -> Float[Tensor, "T H W 1"]:
    """Read the masks of a clip, in the order of their names: one per frame of its source, or one per frame of the clip.

    Raises:
        InputError: The number of masks or the size of one does not match, or one is unreadable.
    """
    files = image_files(folder)
    count = len(clip.frames)
    if len(files) == clip.source_frames:
        files = [files[index] for index in clip.picked]
    if len(files) != count:
        raise InputError(folder, f"holds {len(files)} masks for {count} frames", "give one mask for each frame")
    masks = [read_mask(file) for file in files]
    height, width = clip.frames.shape[1:3]
    for file, mask in zip(files, masks, strict=True):
        if mask.shape[:2] != (height, width):
            what = f"is {mask.shape[1]} x {mask.shape[0]}, the input is {width} x {height}"
            raise InputError(file, what, "make the masks as large as the input")
    return torch.stack(masks)


def read_views(folder: Path, count: int) -> Float[Tensor, "R H W 4"]:
    """Read the views in a folder, in the order of their names.

    Raises:
        InputError: There are not exactly `count` views, they differ in size, are not square, or one is unreadable.
    """
    files = image_files(folder)
    if len(files) != count:
        remedy = "give one image for each of views.azimuths, in their order"
        raise InputError(folder, f"holds {len(files)} views for {count} azimuths", remedy)
    views = [read_image(file) for file in files]
    side = views[0].shape[0]
    for file, view in zip(files, views, strict=True):
        if view.shape[:2] != (side, side):
            what = f"is {view.shape[1]} x {view.shape[0]} px"
            raise InputError(file, what, "make all views square and of one size")
    return torch.stack(views)


def read_flow_of(path: Path, clip: Clip) -> Flow:
    """Read the flow between the frames of a clip, in pixels of the input.

    Raises:
        InputError: The arrays do not match the clip, or are unreadable.
    """
    frames, height, width = clip.frames.shape[:3]
    return read_flow(path, Size(width, height), frames)


def read_tracks_of(path: Path, clip: Clip, views: int | None) -> Keypoints:
    """Read keypoints in the frames of a clip and, if there are supplied views, in the views; in pixels of the files.

    A keypoint outside its image gets weight 0.

    Args:
        path: An archive with the arrays of a scene's `keypoints.npz`.
        clip: The input.
        views: Number of supplied views; None if there are none.

    Raises:
        InputError: The arrays do not match the clip, are unreadable, or no keypoint is visible in the first frame.
    """
    frames, height, width = clip.frames.shape[:3]
    found = read_keypoints(path, Size(width, height), frames, views, None)
    if not (found.weights[0] > 0).any():
        what = f"shows no keypoint inside the first frame of {width} x {height} px"
        raise InputError(f"{path}: uv", what, "give pixels of the input")
    return found
