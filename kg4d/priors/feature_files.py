"""Feature maps of a video's frames from files, as any network may have written them."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import resample
from kg4d.data.records import ImageFiles, Scene
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.geometry.sampling import sample_image
from kg4d.priors.files import files_in_order, read_npy, read_numbers
from kg4d.priors.flow_features import map_size

_MOST = 4096  # channels: their covariance has to fit into memory


def read_feature_maps(folder: Path, scene: Scene) -> Float[Tensor, "T D h w"]:
    """Read the maps of a scene's reference video, at an eighth of its images and with their lens undone.

    Args:
        folder: Holds one `.npy` a frame, channels first, of any size: each covers the whole image.
        scene: As it was read.

    Raises:
        InputError: Files are missing, damaged, of no such shape, or hold NaN or infinity.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "give a folder of .npy files")
    files, count = files_in_order(folder, ".npy"), len(scene.reference)
    if len(files) != count:
        what = f"holds {len(files)} .npy for {count} frames"
        raise InputError(folder, what, "give one for each frame of the reference video, and no others")
    of_images = Size.of(scene.reference.images.shape)
    size = map_size(of_images.height, of_images.width)
    source = scene.files or ImageFiles(of_images, (None,) * count)
    maps: list[Tensor] = []
    for file, lens in zip(files, source.lenses, strict=True):
        found = resample(_read(file).movedim(0, -1)[None], *size)[0]
        if maps and found.shape != maps[0].shape:
            what = f"holds {found.shape[-1]} channels, those before it {maps[0].shape[-1]}"
            raise InputError(file, what, "give the same features of all frames")
        if lens is not None:
            share = torch.tensor(size) / torch.tensor(source.grid)
            found = sample_image(found, resample(lens.source[None], *size)[0] * share)
        maps.append(found)
    return torch.stack(maps).movedim(-1, 1).contiguous()


def _read(file: Path) -> Float[Tensor, "D rows columns"]:
    values = read_npy(file)
    if values.ndim != 3 or 0 in values.shape or values.shape[0] > _MOST or values.dtype.kind not in "fiu":
        what = f"holds {values.dtype} of the shape {values.shape}"
        raise InputError(file, what, f"save channels (at most {_MOST}), rows and columns of numbers, in this order")
    return read_numbers(file, np.ascontiguousarray(values), "leave no frame and no border without features")
