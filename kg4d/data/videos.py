"""Reading an input: video files, animated images, folders of frames, or a single image."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kg4d.data.images import DAMAGED, read_image
from kg4d.errors import InputError

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_ANIMATED = ("PNG", "WEBP", "GIF")
_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
_FPS = 8.0  # for frames without time stamps
_KEEP_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own decoders of these formats drop the alpha channel
_AS_IT_IS = ["-fps_mode", "passthrough"]  # otherwise frames are repeated to reach a constant rate


@dataclass(frozen=True)
class Clip:
    """The frames of a video, or one image (T = 1).

    Attributes:
        frames: Straight RGBA in [0, 1]; alpha is 1 if the file has none.
        fps: Rate of these frames, frames per second.
        source_frames: Number of frames of the source, from which these were picked evenly.
        files: The files of the frames, if each has its own; otherwise empty.
    """

    frames: Float[Tensor, "T H W 4"]
    fps: float
    source_frames: int
    files: tuple[Path, ...] = ()

    @property
    def has_alpha(self) -> bool:
        """Whether any pixel is transparent."""
        return bool((self.frames[..., 3] < 1).any())

    @property
    def opaque(self) -> list[str]:
        """The frames without any transparent pixel, by the names of their files, or by index."""
        solid = (self.frames[..., 3] == 1).flatten(1).all(1).tolist()
        names = [file.name for file in self.files] or [f"frame {index}" for index in range(len(solid))]
        return [name for name, all_solid in zip(names, solid, strict=True) if all_solid]


def read_clip(path: str | Path, max_frames: int) -> Clip:
    """Read one image (T = 1), or a video of at least two frames.

    Args:
        path: An image; a video file; an animated GIF, WebP or PNG, which counts as a video; or a folder of frames.
        max_frames: A longer video is thinned evenly to this many frames, the first and the last included. Frames are
            picked by index, not by time, which matters if the frame rate varies.

    Raises:
        InputError: The input is missing, damaged, of another format, or a video of one frame.
    """
    path = Path(path)
    if path.is_dir():
        clip = _read_folder(path, max_frames)
    elif not path.is_file():
        raise InputError(path, "no such file or folder", "check the path of the input")
    elif path.suffix.lower() in _VIDEO_SUFFIXES:
        clip = _read_file(path, max_frames)
    elif (count := _pictures(path)) > 1:
        _log.info("%s: an animation of %d pictures: taken as a video", path, count)
        clip = _read_animation(path, count, max_frames)
    else:
        return Clip(read_image(path)[None], _FPS, 1, (path,))
    if len(clip.frames) < 2:
        raise InputError(path, "is a video of one frame", "give at least two, or the frame itself as an image")
    return clip


def is_clip(path: Path) -> bool:
    """Whether `path` is a file, or a folder with images in it: what `read_clip` may be able to read."""
    return path.is_file() or (path.is_dir() and any(_is_image(file) for file in path.iterdir()))


def image_files(folder: str | Path) -> list[Path]:
    """The images in a folder, sorted by name, where numbers are compared by value ("2.png" before "10.png").

    Raises:
        InputError: There is no such folder, or it has no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "give a folder of PNG, JPEG or WebP images")
    files = [path for path in folder.iterdir() if _is_image(path)]
    if not files:
        raise InputError(folder, "holds no PNG, JPEG or WebP image", "give a folder of images")
    return sorted(files, key=_natural)


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Up to `limit` indices below `count`, spread evenly from the first to the last.

    >>> evenly_spaced(31, 4), evenly_spaced(3, 16)
    ([0, 10, 20, 30], [0, 1, 2])
    """
    if count <= limit:
        return list(range(count))
    return [round(index * (count - 1) / (limit - 1)) for index in range(limit)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _natural(path: Path) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", path.name)]


def _read_folder(folder: Path, max_frames: int) -> Clip:
    files = image_files(folder)
    chosen = tuple(files[index] for index in evenly_spaced(len(files), max_frames))
    frames = [read_image(file) for file in chosen]
    for file, frame in zip(chosen, frames, strict=True):
        if frame.shape != frames[0].shape:
            (height, width), (first_height, first_width) = frame.shape[:2], frames[0].shape[:2]
            what = f"is {width} x {height}, {chosen[0].name} is {first_width} x {first_height}"
            raise InputError(file, what, "make all frames one size")
    return Clip(torch.stack(frames), _FPS, len(files), chosen)


def _pictures(path: Path) -> int:
    """How many pictures an image file holds; 1 where it is none, which its reader then says."""
    try:
        with Image.open(path, formats=_ANIMATED) as image:
            return int(getattr(image, "n_frames", 1))
    except DAMAGED:
        return 1


def _read_animation(path: Path, count: int, max_frames: int) -> Clip:
    frames, milliseconds, wanted = [], 0.0, set(evenly_spaced(count, max_frames))
    try:
        with Image.open(path, formats=_ANIMATED) as image:
            for index in range(count):
                image.seek(index)
                milliseconds += image.info.get("duration", 0)
                if index in wanted:
                    frames.append(_pixels(image.convert("RGBA")))
    except DAMAGED as error:
        raise InputError(path, "is an animation that is cut short or damaged", "save it again") from error
    fps = 1000 * count / milliseconds if milliseconds > 0 else _FPS
    return Clip(torch.stack(frames), _thinned(fps, len(frames), count), count)


def _thinned(fps: float, kept: int, count: int) -> float:
    return fps * max(1, kept - 1) / max(1, count - 1)


def _pixels(image: Image.Image) -> Float[Tensor, "H W 4"]:
    return torch.from_numpy(np.array(image)).float() / 255


def _read_file(path: Path, max_frames: int) -> Clip:
    """Decode with ffmpeg in two passes, so that only the wanted frames are held in memory."""
    try:
        count, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
        decoded = _decoded(path, [])
        about = next(decoded)
        if decoder := _KEEP_ALPHA.get(about["codec"].strip(",")):
            decoded = _decoded(path, ["-c:v", decoder])
            about = next(decoded)
        frames = _picked(decoded, evenly_spaced(count, max_frames), about["size"])
    except (OSError, RuntimeError, StopIteration) as error:
        raise InputError(
            path, "cannot be decoded as a video", "save it again, as H.264 in an .mp4 for example"
        ) from error
    fps = float(about["fps"]) or _FPS
    announced = float(about["duration"]) * fps
    if count < 0.9 * announced - 1 or len(frames) < min(count, max_frames):
        what = f"is cut short: {count} of about {announced:.0f} frames can be decoded"
        raise InputError(path, what, "copy or save it again")
    return Clip(torch.stack(frames), _thinned(fps, len(frames), count), count)


def _decoded(path: Path, input_params: list[str]) -> Iterator[Any]:
    """What ffmpeg reports about a video, then each of its frames once."""
    frames: Iterator[Any] = imageio_ffmpeg.read_frames(
        str(path), pix_fmt="rgba", bpp=4, input_params=input_params, output_params=_AS_IT_IS
    )
    return frames


def _picked(decoded: Iterable[bytes], wanted: Sequence[int], size: tuple[int, int]) -> list[Float[Tensor, "H W 4"]]:
    width, height = size
    frames = []
    for index, data in enumerate(decoded):
        if index in wanted:
            frames.append(torch.frombuffer(bytearray(data), dtype=torch.uint8).view(height, width, 4).float() / 255)
    return frames
