"""Notebooks run from top to bottom, and each is the pair of a script that can be read and compared."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_every_notebook_has_its_script():
    assert NOTEBOOKS
    assert {path.stem for path in NOTEBOOKS} == {path.stem for path in FOLDER.glob("*.py")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_and_scripts_say_the_same(path: Path):
    stored, script = nbformat.read(path, as_version=4), jupytext.read(path.with_suffix(".py"))
    assert [(cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]
    assert path.stat().st_size < 400_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_print_what_they_show(path: Path):
    stored = nbformat.read(path, as_version=4)
    fresh = jupytext.read(path.with_suffix(".py"))
    where = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(fresh, timeout=600, startup_timeout=300, kernel_name="python3", resources=where).execute()
    assert printed(fresh) == pytest.approx(printed(stored), rel=0.2)


def printed(notebook: nbformat.NotebookNode) -> list[float]:
    """All numbers that a notebook's cells print; other machines round otherwise, so they are compared loosely."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.text for output in outputs if output.get("name") == "stdout"]  # not the warnings of libraries
    return [float(number) for text in texts for number in re.findall(r"\d+\.\d+(?:e[+-]\d+)?", text)]
