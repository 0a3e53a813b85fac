"""What a person gets to see of a run: previews while it trains, and files for other programs at its end."""

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.config.schema import ExperimentConfig
from kg4d.data.images import write_png
from kg4d.data.records import PosedImages
from kg4d.formats.base import Exported, ExportSource
from kg4d.formats.build import build_exporter
from kg4d.formats.mp4 import contact_sheet
from kg4d.formats.page.film import film_of
from kg4d.formats.page.packing import pack
from kg4d.formats.settings import ExportFormat, Orbit
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.folder import scene_folder, variant_of
from kg4d.runs.read_back import LoadedRun, load_run
from kg4d.utils.files import replacing

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
    return export(formats, out or run.folder.export, export_source(run, orbit))


def export_source(run: LoadedRun, orbit: Orbit | None = None) -> ExportSource:
    """What is exported of a finished run.

    Args:
        run: The run.
        orbit: How far the orbit goes around; as the run's configuration says when None.
    """
    exported, measured = run.config.export, run.folder.read_metrics()
    return ExportSource(
        run.fitted,
        run.scene,
        exported.fps,
        orbit or exported.orbit,
        title_of(run.config),
        {} if measured is None else measured["metrics"],
    )


def title_of(config: ExperimentConfig) -> str:
    """What a run is called on a page.

    >>> title_of(ExperimentConfig(name="fox", seed=1))
    'fox · full · seed 1'
    """
    parts = (config.name, scene_folder(config), variant_of(config), f"seed {config.seed}")
    return " · ".join(part for part in parts if part)


def write_film(path: Path, source: ExportSource, times: Float[Tensor, " T"], note: str) -> None:
    """Write what a live page shows of a model, for `kg4d.formats.page.live.Watched`.

    Args:
        path: The file.
        source: The model and its scene.
        times: Those of the frames.
        note: How far the fit is.
    """
    content = pack(film_of(source, times, note))
    with replacing(path) as part:
        part.write_bytes(content)
