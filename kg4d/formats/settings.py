"""Settings of `kg4d.formats`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum


class ExportFormat(StrEnum):
    """The formats in which a run can be exported."""

    PLY = "ply"  # one 3DGS file per frame
    SPZ = "spz"  # the same, compressed
    SPLAT = "splat"  # the same, 32 bytes a Gaussian, as viewers on the web read it
    NATIVE = "native"  # one compact file of the whole model
    USD = "usd"  # one file with a time sample a frame
    GLTF = "gltf"  # the skeleton with its animation, and points that follow it
    BVH = "bvh"  # skeleton with its motion
    TRACKS = "tracks"  # motion of the keypoints as JSON
    MP4 = "mp4"  # videos of the reference view, the test views and an orbit
    GIF = "gif"  # the reference view and an orbit
    VIEWER = "viewer"  # one self-contained page


class Orbit(StrEnum):
    """How far `orbit.mp4` goes around."""

    AUTO = "auto"  # all around where views show the sides, else a swing
    FULL = "full"
    SWING = "swing"  # 30 degrees to both sides of the reference view


@dataclass
class ExportConfig:
    """What is exported at the end of a run.

    Attributes:
        formats: The formats.
        fps: Frames per second of videos and viewer.
        orbit: How far `orbit.mp4` goes around.
    """

    formats: list[ExportFormat] = field(default_factory=lambda: [ExportFormat.PLY, ExportFormat.MP4])
    fps: int = 8
    orbit: Orbit = Orbit.AUTO
