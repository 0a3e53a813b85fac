"""Depth of a video, up to a scale and a shift of each frame: from files, or by a network that looks at single images.

Networks are those that transformers knows by `AutoModelForDepthEstimation`, Depth Anything for one (Yang et al. 2024).
"""

import json
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kg4d.data.images import DAMAGED, on_white
from kg4d.data.readers.undistorted import undistort_depth
from kg4d.data.records import Depth, ImageFiles, Scene
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.priors.base import Identity
from kg4d.priors.files import files_in_order, read_npy, read_numbers
from kg4d.priors.pretrained import load_pretrained
from kg4d.priors.progress import counted
from kg4d.priors.settings import DepthMeasure
from kg4d.utils.files import content_hash

FOLDER = "depth"  # of a scene
_SETTINGS = "preprocessor_config.json"
_AS_TYPE = {"relative": True, "metric": False}  # what a network's settings call its output, and whether it is inverse


def read_depth(folder: Path, scene: Scene, *, inverse: bool) -> Depth:
    """Read the depth of a scene's reference video, at the size and with the lens of its images.

    Args:
        folder: Holds one file a frame, `.npy` or 16-bit `.png`; where there are both, the former are read.
        scene: As it was read.
        inverse: Whether the numbers are one over the depth.

    Raises:
        InputError: Files are missing, damaged, of another shape than the images, or hold NaN or infinity.
    """
    files = _files(folder)
    count, size = len(scene.reference), Size.of(scene.reference.images.shape)
    if len(files) != count:
        what = f"holds {len(files)} files of depth for {count} frames"
        raise InputError(folder, what, "give one for each frame of the reference video, and no others")
    source = scene.files or ImageFiles(size, (None,) * count)
    parts = []
    for file, lens in zip(files, source.lenses, strict=True):
        values = _read(file)
        here = Size(values.shape[1], values.shape[0])
        if here.within(max(source.grid)) != source.grid:
            raise InputError(file, f"is {here}, the images are {source.grid}", "make depth and images of one shape")
        depth = Depth(values[None], (values != 0).float()[None], inverse)
        parts.append(undistort_depth(depth, ImageFiles(source.grid, (lens,))).resampled(size))
    return Depth(torch.cat([part.depth for part in parts]), torch.cat([part.weights for part in parts]), inverse)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "give a folder of .npy or 16-bit .png files")
    for suffix in (".npy", ".png"):
        found = files_in_order(folder, suffix)
        if found:
            return found
    raise InputError(folder, "holds no .npy and no .png", "give one for each frame of the reference video")


def _read(file: Path) -> Float[Tensor, "H W"]:
    values = _of_one_channel(read_npy(file)) if file.suffix.lower() == ".npy" else _read_png(file)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        what = f"holds {values.dtype} of the shape {values.shape}"
        raise InputError(file, what, "save one number for each pixel, rows first")
    return read_numbers(file, values, "write 0 where the depth is unknown")


def _of_one_channel(values: np.ndarray) -> np.ndarray:
    return values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values


def _read_png(file: Path) -> np.ndarray:
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if not image.mode.startswith("I"):
                what = f"is a {image.mode} image of 8 bits a channel"
                raise InputError(file, what, "save depth as 16-bit grey PNG, or as .npy")
            return np.array(image)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(file, "cannot be read as PNG", "save it again") from error


class MonocularDepth:
    """`DepthEstimator` by a network of transformers, which sees one frame at a time, on white.

    Args:
        model: Id on the Hugging Face hub, or a folder that `save_pretrained` of network and image processor wrote.
        measure: What it tells; as its settings say when `auto`.
        device: Where it runs.

    Raises:
        InputError: The model is not available, cannot be read, or does not say what it tells.
    """

    name = "depth-network"

    def __init__(self, model: str, measure: DepthMeasure, device: torch.device) -> None:
        files = ("config.json", _SETTINGS, "*.safetensors")
        network, folder = load_pretrained("depth.model", model, "AutoModelForDepthEstimation", files, "depth.kind=none")
        self.model, self.device, self.network = model, device, network.to(device)
        self.inverse = _is_inverse(model, measure, network.config)
        from transformers import AutoImageProcessor

        try:
            self.processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                folder, local_files_only=True
            )
        except Exception as error:  # the library raises many kinds
            what = f"{model} holds no readable {_SETTINGS}"
            raise InputError("depth.model", what, "give the folder of a complete model") from error

    @cached_property
    def _weights(self) -> str:
        return content_hash(self.network.state_dict())

    def identity(self) -> Identity:
        """The network, its weights, how it is shown images, and what it tells."""
        return {
            "network": str(self.network.config.model_type),
            "weights": self._weights,
            "processor": type(self.processor).__name__,  # those of Pillow and of torchvision round differently
            "settings": json.dumps(self.processor.to_dict(), sort_keys=True, default=str),
            "transformers": version("transformers"),
            "inverse": self.inverse,
        }

    @torch.no_grad()
    def __call__(self, video: Float[Tensor, "T H W 4"]) -> Depth:
        """The depth of T frames, known everywhere."""
        maps = []
        for frame in counted(video, len(video), "frames"):
            shown = on_white(frame).numpy()
            inputs = self.processor(images=[shown], return_tensors="pt").to(self.device)
            (found,) = self.processor.post_process_depth_estimation(
                self.network(**inputs), target_sizes=[tuple(shown.shape[:2])]
            )
            maps.append(found["predicted_depth"].float().cpu())
        depth = torch.stack(maps)
        if not bool(depth.isfinite().all()):
            raise InputError("depth.model", f"{self.model} gives NaN or infinity", "give another model")
        return Depth(depth, torch.ones_like(depth), self.inverse)


def _is_inverse(model: str, measure: DepthMeasure, config: object) -> bool:
    if measure is not DepthMeasure.AUTO:
        return measure is DepthMeasure.INVERSE
    told = getattr(config, "depth_estimation_type", None)
    if told not in _AS_TYPE:
        what = f"{model} does not say whether it tells depth or its inverse"
        raise InputError("depth.measure", what, "set it to depth or inverse, as its authors say")
    return _AS_TYPE[told]
