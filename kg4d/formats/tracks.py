"""The motion of the keypoints as JSON: names, bones, and where each keypoint is in each frame."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.formats.base import Exported, ExportSource
from kg4d.geometry.cameras import Cameras
from kg4d.utils.files import replacing


@dataclass(frozen=True)
class Tracks:
    """J keypoints in the T frames of the reference video.

    Attributes:
        names: J names.
        parents: Index of the parent of each keypoint, -1 for a root.
        fps: Frames per second, > 0.
        positions: World units.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    fps: int
    positions: Float[Tensor, "T J 3"]


def tracks_of(source: ExportSource) -> Tracks:
    """The model's keypoints in the frames of the reference video.

    Raises:
        InputError: The scene has no keypoints.
    """
    keypoints = source.scene.keypoints
    if keypoints is None:
        what = "has no keypoints, and the files asked for hold their motion"
        raise InputError(source.scene.name, what, "choose another export format, or fit a scene with keypoints")
    positions = source.model.keypoints(source.scene.reference.times)
    return Tracks(keypoints.names, keypoints.parents, source.fps, positions.detach().float().cpu())


def export_tracks(source: ExportSource, folder: Path) -> Exported:
    """Write `tracks.json`; a person can also give it to `kg4d.prepare` as keypoints of the reference video.

    It has `names`, `parents`, `fps`, `times` (in [0, 1]), `xyz[frame][keypoint]` in the axes and units of the scene's
    world, and `uv[frame][keypoint]` in px of the reference video, null behind the camera.

    Raises:
        InputError: The scene has no keypoints.
    """
    tracks, reference = tracks_of(source), source.scene.reference
    table = {
        "names": tracks.names,
        "parents": tracks.parents,
        "fps": tracks.fps,
        "times": reference.times.tolist(),
        "xyz": tracks.positions.tolist(),
        "uv": _pixels(reference.cameras, tracks.positions),
    }
    path = folder / "tracks.json"
    with replacing(path) as part:
        part.write_text(json.dumps(table) + "\n", encoding="utf-8")
    return Exported([path])


def _pixels(cameras: Cameras, positions: Float[Tensor, "T J 3"]) -> list[list[list[float] | None]]:
    """Where camera t sees the keypoints of frame t; the centre of the first pixel is (0.5, 0.5)."""
    frames = []
    for frame, points in enumerate(positions):
        seen = cameras[frame].project(points.to(cameras.Ks))
        ahead = (seen.depths[0] > 0) & torch.isfinite(seen.pixels[0]).all(-1)
        frames.append(
            [uv if there else None for uv, there in zip(seen.pixels[0].tolist(), ahead.tolist(), strict=True)]
        )
    return frames
