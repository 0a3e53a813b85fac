"""Moving Gaussians in one self-contained page, which a browser plays from disk and without any network."""

from pathlib import Path

from kg4d.formats.base import Exported, ExportSource
from kg4d.formats.page.film import Film, film_of
from kg4d.formats.page.packing import pack
from kg4d.formats.page.template import page_with
from kg4d.utils.files import replacing


def write_viewer(path: str | Path, film: Film) -> None:
    """Write one HTML file that plays a film.

    Args:
        path: The `.html` file; parent folders are created.
        film: What it shows.
    """
    page = page_with([pack(film)], film.title)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")


def export_viewer(source: ExportSource, folder: Path) -> Exported:
    """Write `viewer.html`, with the skeleton where the scene has keypoints."""
    path = folder / "viewer.html"
    write_viewer(path, film_of(source, errors=True))
    return Exported([path])
