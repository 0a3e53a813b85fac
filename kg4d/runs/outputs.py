"""What a person gets to see of a run: previews while it trains, and files for other programs at its end."""

from pathlib import Path
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.config.schema import ExportFormat
from kg4d.data.images import write_png
from kg4d.data.records import PosedImages, Scene, view_grid
from kg4d.formats.mp4 import contact_sheet, render_orbit, side_by_side, write_mp4
from kg4d.formats.ply import write_sequence
from kg4d.formats.spz import write_spz
from kg4d.formats.viewer import write_viewer
from kg4d.geometry.orbits import orbit
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.read_back import load_run

_PREVIEW_COLUMNS = 4
_ORBIT_FRAMES = 48


def write_preview(path: Path, fitted: FittedModel, images: PosedImages) -> Float[Tensor, "H W 3"]:
    """A few images above what the model makes of them; the picture is also returned."""
    chosen = torch.linspace(0, len(images) - 1, min(_PREVIEW_COLUMNS, len(images))).round().long()
    truth = images.composited(fitted.background)[chosen]
    rendered = fitted.render(images.cameras[chosen], images.times[chosen]).clamp(0, 1)
    sheet = contact_sheet(torch.cat([truth, rendered]), columns=len(chosen))
    write_png(path, sheet)
    return sheet


def export(
    formats: list[ExportFormat], folder: Path, fitted: FittedModel, scene: Scene, fps: int
) -> dict[str, list[Path]]:
    """Write each format below `folder`; returns the paths by format.

    Raises:
        ImportError: A format needs a library that is not installed; the message names the extra.
    """
    written: dict[str, list[Path]] = {}
    times = scene.reference.times
    for kind in formats:
        match kind:
            case ExportFormat.PLY:
                write_sequence(folder / "ply", fitted.states(times), fps=fps)
                written[kind.value] = [folder / "ply"]
            case ExportFormat.SPZ:
                paths = [folder / "spz" / f"frame_{index:04d}.spz" for index in range(len(times))]
                for path, state in zip(paths, fitted.states(times), strict=True):
                    write_spz(path, state)
                written[kind.value] = [folder / "spz"]
            case ExportFormat.MP4:
                written[kind.value] = _write_videos(folder / "video", fitted, scene, fps)
            case ExportFormat.VIEWER:
                keypoints = None if scene.keypoints is None else fitted.keypoints(times)
                parents = () if scene.keypoints is None else scene.keypoints.parents
                path = folder / "viewer.html"
                write_viewer(path, fitted.states(times), fps, keypoints, parents)
                written[kind.value] = [path]
            case _:
                assert_never(kind)
    return written


def _write_videos(folder: Path, fitted: FittedModel, scene: Scene, fps: int) -> list[Path]:
    """Reference and test videos beside the truth and the error, and an orbit while time loops."""
    paths = [folder / "reference.mp4"]
    reference = scene.reference
    rendered = fitted.render(reference.cameras, reference.times).clamp(0, 1)
    write_mp4(paths[0], side_by_side(rendered, reference.composited(fitted.background)), fps)
    if scene.test is not None:
        rendered = fitted.render(scene.test.cameras, scene.test.times).clamp(0, 1)
        truth = scene.test.composited(fitted.background)
        for view, row in enumerate(view_grid(scene.test)):
            paths.append(folder / f"test_{view}.mp4")
            write_mp4(paths[-1], side_by_side(rendered[row], truth[row]), fps)
    paths.append(folder / "orbit.mp4")
    write_mp4(paths[-1], _orbit(fitted, scene), fps)
    return paths


def _orbit(fitted: FittedModel, scene: Scene) -> Float[Tensor, "C H W 3"]:
    camera = scene.reference.cameras[0]
    radius = float(camera.centers[0].norm())
    fov = 2 * torch.rad2deg(torch.atan(camera.height / (2 * camera.Ks[0, 1, 1]))).item()
    azimuths = torch.arange(_ORBIT_FRAMES) * (360.0 / _ORBIT_FRAMES)
    cameras = orbit(azimuths, torch.full_like(azimuths, 10.0), radius, fov, camera.width, camera.height)
    states = fitted.states(scene.reference.times)
    return render_orbit(fitted.renderer, states, cameras, fitted.background)


def export_run(path: str | Path, formats: list[ExportFormat], out: Path | None = None) -> dict[str, list[Path]]:
    """Write files of a finished run for other programs, below `out` or its export folder."""
    run = load_run(path)
    return export(formats, out or run.folder.export, run.fitted, run.scene, run.config.export.fps)
