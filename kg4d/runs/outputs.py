"""What a person gets to see of a run: previews while it trains, and files for other programs at its end."""

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import write_png
from kg4d.data.records import PosedImages
from kg4d.formats.base import Exported, ExportSource
from kg4d.formats.build import build_exporter
from kg4d.formats.mp4 import contact_sheet
from kg4d.formats.settings import ExportFormat, Orbit
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.read_back import load_run

_PREVIEW_COLUMNS = 4


def write_preview(path: Path, fitted: FittedModel, images: PosedImages) -> Float[Tensor, "H W 3"]:
    """A few images above what the model makes of them; the picture is also returned."""
    chosen = torch.linspace(0, len(images) - 1, min(_PREVIEW_COLUMNS, len(images))).round().long()
    truth = images.composited(fitted.background)[chosen]
    rendered = fitted.render(images.cameras[chosen], images.times[chosen]).clamp(0, 1)
    sheet = contact_sheet(torch.cat([truth, rendered]), columns=len(chosen))
    write_png(path, sheet)
    return sheet


def export(formats: Iterable[ExportFormat], folder: Path, source: ExportSource) -> dict[ExportFormat, Exported]:
    """Write each format below `folder`.

    Raises:
        ImportError: A format needs a library that is not installed; the message names the extra.
    """
    return {kind: build_exporter(kind)(source, folder) for kind in formats}


def export_run(
    path: str | Path, formats: Iterable[ExportFormat], out: Path | None = None, orbit: Orbit | None = None
) -> dict[ExportFormat, Exported]:
    """Write files of a finished run for other programs, below `out` or its export folder.

    Args:
        path: The run folder.
        formats: What to write.
        out: Where; the run's export folder when None.
        orbit: How far the orbit goes around; as the run's configuration says when None.
    """
    run = load_run(path)
    exported = run.config.export
    return export(
        formats, out or run.folder.export, ExportSource(run.fitted, run.scene, exported.fps, orbit or exported.orbit)
    )
