"""The export formats. Light to import: commands list the formats before they load anything."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    import kg4d.formats.base


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


def build_exporter(kind: ExportFormat) -> "kg4d.formats.base.Exporter":  # noqa: C901 - one arm a format
    """The exporter of a format."""
    match kind:
        case ExportFormat.PLY:
            from kg4d.formats.ply import export_ply

            return export_ply
        case ExportFormat.SPZ:
            from kg4d.formats.spz import export_spz

            return export_spz
        case ExportFormat.SPLAT:
            from kg4d.formats.splat import export_splat

            return export_splat
        case ExportFormat.NATIVE:
            from kg4d.formats.native import export_native

            return export_native
        case ExportFormat.USD:
            from kg4d.formats.usd import export_usd

            return export_usd
        case ExportFormat.GLTF:
            from kg4d.formats.gltf import export_gltf

            return export_gltf
        case ExportFormat.BVH:
            from kg4d.formats.bvh import export_bvh

            return export_bvh
        case ExportFormat.TRACKS:
            from kg4d.formats.tracks import export_tracks

            return export_tracks
        case ExportFormat.MP4:
            from kg4d.formats.mp4 import export_videos

            return export_videos
        case ExportFormat.GIF:
            from kg4d.formats.gif import export_gifs

            return export_gifs
        case ExportFormat.VIEWER:
            from kg4d.formats.viewer import export_viewer

            return export_viewer
        case _:
            assert_never(kind)
