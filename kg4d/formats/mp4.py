"""MP4 videos, contact sheets and orbits.

Frames are (T, H, W, 3), RGB, floats in [0, 1] or 8-bit; floats outside [0, 1] are clipped.
"""

import math
from pathlib import Path

import imageio_ffmpeg
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from kg4d.data.around import cameras_around
from kg4d.data.images import quantize
from kg4d.data.records import PosedImages, view_grid
from kg4d.formats.base import Exported, ExportSource, MovingModel
from kg4d.formats.legend import with_legend
from kg4d.formats.pictures import depth_pictures, motion_pictures
from kg4d.formats.settings import Orbit
from kg4d.geometry.cameras import Cameras
from kg4d.utils.files import replacing

_CRF = 16  # x264's quality: 0 is lossless, 18 counts as visually lossless
_ORBIT_FRAMES = 48
_SWING = 30.0  # degrees to each side
COMPARED = ("predicted", "truth", "error")  # the pictures of a comparison, from left to right
_MOVING = ("predicted", "error", "depth", "motion")


def write_mp4(path: str | Path, frames: Float[Tensor, "T H W 3"] | UInt8[Tensor, "T H W 3"], fps: int | float) -> None:
    """Write H.264 that every browser and player shows; the file appears complete or not at all.

    Odd sizes are padded to even ones by repeating the last row or column, as 4:2:0 chroma requires.

    Args:
        path: The `.mp4` file; parent folders are created.
        frames: At least one frame.
        fps: Frames per second, > 0.

    Raises:
        ValueError: There is no frame, or `fps` is not positive.
        RuntimeError: ffmpeg did not write the file; its own message is on the console.
    """
    if len(frames) == 0 or fps <= 0:
        raise ValueError(f"need at least one frame and fps > 0, got {len(frames)} and {fps}")
    pixels = _even(frames.detach().cpu() if frames.dtype == torch.uint8 else quantize(frames.detach().cpu()))
    height, width = pixels.shape[1:3]
    with replacing(path) as part:
        writer = imageio_ffmpeg.write_frames(
            part,
            (width, height),
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=1,
            ffmpeg_log_level="error",
            output_params=["-crf", str(_CRF), "-movflags", "+faststart"],
        )
        writer.send(None)
        for frame in pixels:
            writer.send(frame.contiguous().numpy())
        writer.close()
        if not part.is_file() or part.stat().st_size == 0:
            raise RuntimeError(f"ffmpeg did not write {path}")


def _even(frames: UInt8[Tensor, "T H W 3"]) -> UInt8[Tensor, "T even_H even_W 3"]:
    height, width = frames.shape[1:3]
    rows = torch.arange(height + height % 2).clamp_max(height - 1)
    columns = torch.arange(width + width % 2).clamp_max(width - 1)
    return frames[:, rows][:, :, columns]


def side_by_side(
    prediction: Float[Tensor, "T H W 3"], truth: Float[Tensor, "T H W 3"]
) -> Float[Tensor, "T H three_W 3"]:
    """Place prediction, ground truth and their absolute difference side by side, from left to right."""
    return torch.cat([prediction, truth, (prediction - truth).abs()], dim=2)


def contact_sheet(
    frames: Float[Tensor, "T H W 3"], columns: int, gap: int = 2
) -> Float[Tensor, "sheet_height sheet_width 3"]:
    """All frames in one image, row by row, on white.

    Args:
        frames: At least one frame.
        columns: Frames per row, at least 1.
        gap: Space between frames, px.

    Raises:
        ValueError: There is no frame, or `columns` is below 1.
    """
    if len(frames) == 0 or columns < 1:
        raise ValueError(f"need at least one frame and one column, got {len(frames)} and {columns}")
    columns = min(columns, len(frames))
    count, height, width, _ = frames.shape
    rows = -(-count // columns)
    cells = F.pad(frames, (0, 0, 0, gap, 0, gap, 0, rows * columns - count), value=1.0)
    grid = cells.reshape(rows, columns, height + gap, width + gap, 3).movedim(2, 1)
    sheet = grid.reshape(rows * (height + gap), columns * (width + gap), 3)
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def render_orbit(model: MovingModel, times: Float[Tensor, " T"], cameras: Cameras) -> Float[Tensor, "C H W 3"]:
    """One frame per camera while time loops: frame i shows time i mod T.

    Raises:
        ValueError: There is no time.
    """
    if not len(times):
        raise ValueError("need at least one time")
    return model.render(cameras, times[torch.arange(len(cameras)) % len(times)]).clamp(0, 1)


def orbit_angles(orbit: Orbit, *, sides_seen: bool) -> Float[Tensor, " C"]:
    """Degrees from the reference camera for each frame of the orbit: all around, or to both sides and back.

    Args:
        orbit: Which; `auto` stays near what was seen where no view shows the sides.
        sides_seen: Whether there are views around the object.
    """
    turn = torch.arange(_ORBIT_FRAMES) / _ORBIT_FRAMES
    whole = orbit is Orbit.FULL or (orbit is Orbit.AUTO and sides_seen)
    return 360 * turn if whole else _SWING * torch.sin(2 * math.pi * turn)


def export_videos(source: ExportSource, folder: Path) -> Exported:
    """Write `video/`: reference and test videos beside the truth and the error, and `orbit.mp4` while time loops.

    A bar above the pictures says which is which.

    Where no image shows the motion, `reference.mp4` has the model alone. Of places also `test_<view>_motion.mp4`:
    picture, error, depth, and how far what the first picture shows has moved.
    """
    paths, model, scene = [folder / "video" / "reference.mp4"], source.model, source.scene
    shown = scene.reference
    if scene.pictured:
        write_mp4(paths[0], with_legend(beside_the_truth(model, shown), COMPARED), source.fps)
    else:
        write_mp4(paths[0], model.render(shown.cameras, shown.times), source.fps)
    if scene.test is not None:
        compared = beside_the_truth(model, scene.test)
        for view, row in enumerate(view_grid(scene.test)):
            paths.append(folder / "video" / f"test_{view}.mp4")
            write_mp4(paths[-1], with_legend(compared[row], COMPARED), source.fps)
            if scene.backdrop:
                moving = _with_motion(model, scene.test[torch.tensor(row)], compared[row])
                paths.append(folder / "video" / f"test_{view}_motion.mp4")
                write_mp4(paths[-1], with_legend(moving, _MOVING), source.fps)
    paths.append(folder / "video" / "orbit.mp4")
    cameras = cameras_around(scene, orbit_angles(source.orbit, sides_seen=scene.ring is not None))
    write_mp4(paths[-1], render_orbit(model, scene.reference.times, cameras), source.fps)
    return Exported(paths, videos=paths)


def _with_motion(
    model: MovingModel, images: PosedImages, compared: Float[Tensor, "M H three_W 3"]
) -> Float[Tensor, "M H four_W 3"]:
    """Picture, error, depth, and flow from the first frame on over its picture (FLAG-4D, figure 3)."""
    width = images.cameras.width
    picture, error = compared[:, :, :width], compared[:, :, 2 * width :]
    depth = depth_pictures(model.depth(images.cameras, images.times))
    still = images.cameras[[0, 0]]
    flows = torch.stack([model.flow(still, torch.stack([images.times[0], time])) for time in images.times])
    return torch.cat([picture, error, depth, motion_pictures(flows, picture[0])], dim=2)


def beside_the_truth(model: MovingModel, images: PosedImages) -> Float[Tensor, "M H three_W 3"]:
    """What the model shows beside each image and their difference: the pictures that `COMPARED` names."""
    return side_by_side(model.render(images.cameras, images.times).clamp(0, 1), images.composited(model.background))
