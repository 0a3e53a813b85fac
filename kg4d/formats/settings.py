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


@dataclass
class MotionConfig:
    """A motion that moves the model in place of one that is fitted to a video.

    Attributes:
        path: A BVH file, or JSON as `kg4d.export --format tracks` writes it; no such motion when empty.
        every: Every n-th frame of it is used, beginning with the first.
        names: Name of a keypoint and that of its joint in the file, where they differ in more than capitals, spaces and
            punctuation.
        aligned: Turn it as a whole so that it begins as the model stands; false keeps its axes.
        frames: How many frames are used, where that is known and the file need not be read; `kg4d.animate` writes it.
    """

    path: str = ""
    every: int = 1
    names: dict[str, str] = field(default_factory=dict)
    aligned: bool = True
    frames: int | None = None

    def __post_init__(self) -> None:
        """Check the range of the settings.

        Raises:
            ValueError: `every` is not positive.
        """
        if self.every < 1:
            raise ValueError(f"motion.every: must be at least 1, not {self.every}")
