"""The export formats. Light to import: commands list the formats before they load anything."""

from typing import TYPE_CHECKING, assert_never

from kg4d.formats.settings import ExportFormat

if TYPE_CHECKING:
    import kg4d.formats.base


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
