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
from kg4d.data.spans import Span
from kg4d.errors import InputError

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_ANIMATED = ("PNG", "WEBP", "GIF")
_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
_FPS = 8.0  # for frames without time stamps
_KEEP_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own decoders of these formats drop the alpha channel
_AS_IT_IS = ["-fps_mode", "passthrough"]  # otherwise frames are repeated to reach a constant rate
# Pixels that are not square, as of DV tapes, become so; where the file does not say their shape, sar is 1.
_SQUARE = ["-vf", "scale=w=round(iw*max(sar\\,1)):h=round(ih*max(1/sar\\,1)),setsar=1"]


@dataclass(frozen=True)
class Clip:
    """The frames of a video, or one image (T = 1).

    Attributes:
        frames: Straight RGBA in [0, 1]; alpha is 1 if the file has none.
        fps: Rate of these frames, frames per second.
        source_frames: Number of frames of the source, from which these were picked.
        picked: Which frames of the source these are.
        files: The files of the frames, if each has its own; otherwise empty.
    """

    frames: Float[Tensor, "T H W 4"]
    fps: float
    source_frames: int
    picked: tuple[int, ...]
    files: tuple[Path, ...] = ()

    @property
    def has_alpha(self) -> bool:
        """Whether any pixel is transparent."""
        return bool((self.frames[..., 3] < 1).any())

    @property
    def names(self) -> list[str]:
        """What a person calls each frame: the name of its file, or its index in the source."""
        return [file.name for file in self.files] or [f"frame {index}" for index in self.picked]

    @property
    def opaque(self) -> list[str]:
        """The names of the frames without any transparent pixel."""
        solid = (self.frames[..., 3] == 1).flatten(1).all(1).tolist()
        return [name for name, all_solid in zip(self.names, solid, strict=True) if all_solid]


def read_clip(path: str | Path, span: Span) -> Clip:
    """Read one image (T = 1), or a video of at least two frames.

    Args:
        path: An image; a video file; an animated GIF, WebP or PNG, which counts as a video; or a folder of frames.
        span: Which frames of a video are used; a folder of frames has 8 a second.

    Raises:
        InputError: The input is missing, damaged, of another format, a video of one frame, or has fewer than two frames
            in the span.
    """
    path = Path(path)
    if path.is_dir():
        clip = _read_folder(path, span)
    elif not path.is_file():
        raise InputError(path, "no such file or folder", "check the path of the input")
    elif path.suffix.lower() in _VIDEO_SUFFIXES:
        clip = _read_file(path, span)
    elif (count := _pictures(path)) > 1:
        _log.info("%s: an animation of %d pictures: taken as a video", path, count)
        clip = _read_animation(path, count, span)
    else:
        return Clip(read_image(path)[None], _FPS, 1, (0,), (path,))
    if len(clip.frames) < 2:
        raise InputError(path, "is a video of one frame", "give at least two, or the frame itself as an image")
    if len(clip.frames) < clip.source_frames:
        first, last, kept = clip.picked[0], clip.picked[-1], len(clip.frames)
        one_in = (last - first) / (kept - 1)
        what = "%s: %d of %d frames are used: %d to %d, one in %.3g (frames, start, end and every choose them)"
        _log.info(what, path, kept, clip.source_frames, first, last, one_in)
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
    return sorted(files, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[str | int]:
    """A key that sorts names with the numbers in them compared by value.

    >>> sorted(["10.png", "2.png"], key=natural_key)
    ['2.png', '10.png']
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _read_folder(folder: Path, span: Span) -> Clip:
    files = image_files(folder)
    picked = tuple(span.picked(len(files), _FPS))
    chosen = tuple(files[index] for index in picked)
    frames = [read_image(file) for file in chosen]
    for file, frame in zip(chosen, frames, strict=True):
        if frame.shape != frames[0].shape:
            (height, width), (first_height, first_width) = frame.shape[:2], frames[0].shape[:2]
            what = f"is {width} x {height}, {chosen[0].name} is {first_width} x {first_height}"
            raise InputError(file, what, "make all frames one size")
    return Clip(torch.stack(frames), _FPS, len(files), picked, chosen)


def _pictures(path: Path) -> int:
    """How many pictures an image file holds; 1 where it is none, which its reader then says."""
    try:
        with Image.open(path, formats=_ANIMATED) as image:
            return int(getattr(image, "n_frames", 1))
    except DAMAGED:
        return 1


def _read_animation(path: Path, count: int, span: Span) -> Clip:
    frames = []
    try:
        with Image.open(path, formats=_ANIMATED) as image:
            fps = _rate(image, count)
            picked = tuple(span.picked(count, fps))
            for index in picked:
                image.seek(index)
                frames.append(_pixels(image.convert("RGBA")))
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(path, "is an animation that is cut short or damaged", "save it again") from error
    return Clip(torch.stack(frames), _thinned(fps, picked), count, picked)


def _rate(animation: Image.Image, count: int) -> float:
    """Mean rate of an animation, frames per second."""
    milliseconds = 0.0
    for index in range(count):
        animation.seek(index)
        milliseconds += animation.info.get("duration", 0)
    return 1000 * count / milliseconds if milliseconds > 0 else _FPS


def _thinned(fps: float, picked: Sequence[int]) -> float:
    """Rate of the picked frames."""
    return fps * (len(picked) - 1) / (picked[-1] - picked[0]) if len(picked) > 1 else fps


def _pixels(image: Image.Image) -> Float[Tensor, "H W 4"]:
    return torch.from_numpy(np.array(image)).float() / 255


def _read_file(path: Path, span: Span) -> Clip:
    """Decode with ffmpeg in two passes, so that only the wanted frames are held in memory."""
    try:
        count, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
        decoded = _decoded(path, [])
        about = next(decoded)
        if decoder := _KEEP_ALPHA.get(about["codec"].strip(",")):
            decoded = _decoded(path, ["-c:v", decoder])
            about = next(decoded)
        fps = float(about["fps"]) or _FPS
        picked = tuple(span.picked(count, fps))
        frames = _picked(decoded, picked, about["size"])
    except InputError:
        raise
    except (OSError, RuntimeError, StopIteration) as error:
        raise InputError(
            path, "cannot be decoded as a video", "save it again, as H.264 in an .mp4 for example"
        ) from error
    announced = float(about["duration"]) * fps
    if count < 0.9 * announced - 1 or len(frames) < len(picked):
        what = f"is cut short: {count} of about {announced:.0f} frames can be decoded"
        raise InputError(path, what, "copy or save it again")
    size, stored = about["size"], about["source_size"]
    if set(size) != set(stored):  # a picture that is turned keeps its sides
        _log.info("%s: its pixels are not square: %d x %d became %d x %d", path, *stored, *size)
    return Clip(torch.stack(frames), _thinned(fps, picked), count, picked)


def _decoded(path: Path, input_params: list[str]) -> Iterator[Any]:
    """What ffmpeg reports about a video, then each of its frames once."""
    frames: Iterator[Any] = imageio_ffmpeg.read_frames(
        str(path), pix_fmt="rgba", bpp=4, input_params=input_params, output_params=[*_SQUARE, *_AS_IT_IS]
    )
    return frames


def _picked(decoded: Iterable[bytes], wanted: Sequence[int], size: tuple[int, int]) -> list[Float[Tensor, "H W 4"]]:
    width, height = size
    frames = []
    for index, data in enumerate(decoded):
        if index in wanted:
            frames.append(torch.frombuffer(bytearray(data), dtype=torch.uint8).view(height, width, 4).float() / 255)
    return frames
