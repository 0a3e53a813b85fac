"""GIF animations, for where no video can be shown. 256 colours a frame."""

from pathlib import Path

from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from kg4d.data.around import cameras_around
from kg4d.data.images import quantize
from kg4d.formats.base import Exported, ExportSource
from kg4d.formats.mp4 import orbit_angles, render_orbit
from kg4d.utils.files import replacing

_TICK = 10  # ms: durations are multiples of it, and browsers slow down what is shorter than two


def write_gif(path: str | Path, frames: Float[Tensor, "T H W 3"] | UInt8[Tensor, "T H W 3"], fps: int | float) -> None:
    """Write a GIF that plays forever; the file appears complete or not at all.

    Args:
        path: The file; parent folders are created.
        frames: At least one frame, RGB, floats in [0, 1] (clipped) or 8-bit.
        fps: Frames per second, > 0. The duration of a frame is rounded to 10 ms, and 20 ms at least.

    Raises:
        ValueError: There is no frame, or `fps` is not positive.
    """
    if len(frames) == 0 or fps <= 0:
        raise ValueError(f"need at least one frame and fps > 0, got {len(frames)} and {fps}")
    pixels = frames.detach().cpu() if not frames.is_floating_point() else quantize(frames.detach().cpu())
    first, *others = [Image.fromarray(frame.numpy()) for frame in pixels]
    duration = max(2, round(1000 / fps / _TICK)) * _TICK
    with replacing(path) as part:
        first.save(part, save_all=True, append_images=others, duration=duration, loop=0)


def export_gifs(source: ExportSource, folder: Path) -> Exported:
    """Write `gif/`: the model as the reference camera sees it, and an orbit while time loops."""
    model, reference = source.model, source.scene.reference
    paths = [folder / "gif" / "reference.gif", folder / "gif" / "orbit.gif"]
    write_gif(paths[0], model.render(reference.cameras, reference.times), source.fps)
    cameras = cameras_around(source.scene, orbit_angles(source.orbit, sides_seen=source.scene.ring is not None))
    write_gif(paths[1], render_orbit(model, reference.times, cameras), source.fps)
    return Exported(paths)
