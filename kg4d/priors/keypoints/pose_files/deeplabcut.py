"""DeepLabCut: tables of predictions or of labels, with columns scorer / (individuals /) bodyparts / coords.

Sources: Mathis et al. 2018, "DeepLabCut"; Lauer et al. 2022, "Multi-animal pose estimation with DeepLabCut".
"""

import csv
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from kg4d.errors import InputError
from kg4d.priors.keypoints.pose_files.poses import Poses, cleaned, natural_order

_FORMAT = "DeepLabCut"
_COORDS = ("x", "y", "likelihood")
_REMEDY = "give a table as DeepLabCut writes it"


def is_deeplabcut(text: str) -> bool:
    """Whether a text is the CSV table of DeepLabCut."""
    return text.lstrip("\ufeff").startswith("scorer,")


def parse_deeplabcut(text: str, path: Path) -> Poses:
    """The poses in a text for which `is_deeplabcut` holds.

    Args:
        text: The table.
        path: The file, for errors.

    Raises:
        InputError: Rows are missing or too short, or a cell is no number.
    """
    rows = [row for row in csv.reader(StringIO(text.lstrip("\ufeff"))) if row]
    levels = next((index + 1 for index, row in enumerate(rows) if row[0] == "coords"), 0)
    titles = [row[0] for row in rows[:levels]]
    if titles not in (["scorer", "bodyparts", "coords"], ["scorer", "individuals", "bodyparts", "coords"]):
        raise InputError(path, "has no rows scorer, bodyparts and coords at its head", _REMEDY)
    head, body = rows[:levels], rows[levels:]
    if not body:
        raise InputError(path, "(DeepLabCut) has no rows", _REMEDY)
    index = 1 + next((place for place, cell in enumerate(head[-1][1:]) if cell), 0)
    short = next((number for number, row in enumerate(body) if len(row) != len(head[-1])), None)
    if short is not None or len({len(row) for row in head}) > 1:
        line = levels + 1 + (short or 0)
        raise InputError(f"{path}: row {line}", "has another number of cells than the head", _REMEDY)
    columns = list(zip(*(row[index:] for row in head), strict=True))
    try:
        values = np.array([[float(cell) if cell.strip() else np.nan for cell in row[index:]] for row in body])
    except ValueError as error:
        raise InputError(path, f"has a cell that is no number: {error}", _REMEDY) from error
    return from_columns(columns, values, [row[index - 1] for row in body], path)


def from_columns(
    columns: Sequence[tuple[str, ...]], values: Float[np.ndarray, "F C"], labels: Sequence[str], path: Path
) -> Poses:
    """The poses in a table.

    Args:
        columns: For each of its C columns scorer, (individual,) body part, and x, y or likelihood.
        values: The F rows; NaN where nothing was labelled or predicted.
        labels: File name or number of the frame that each row is about.
        path: The file, for errors.

    Raises:
        InputError: There are no rows, a column is twice there, or of another kind, or x comes without y.
    """
    if not len(values) or not columns:
        raise InputError(path, "(DeepLabCut) has no values", _REMEDY)
    individuals = tuple(dict.fromkeys(column[1] if len(column) == 4 else "" for column in columns))
    names = tuple(dict.fromkeys(column[-2] for column in columns))
    table = np.full((len(values), len(individuals), len(names), 3), np.nan)
    table[..., 2] = 1.0  # of a label that a person set
    filled = set()
    for place, column in enumerate(columns):
        if column[-1] not in _COORDS or column[-3:] in filled or len(column) not in (3, 4):
            raise InputError(f"{path}: column {'/'.join(column)}", "is twice there, or of another kind", _REMEDY)
        filled.add(column[-3:])
        individual = individuals.index(column[1]) if len(column) == 4 else 0
        table[:, individual, names.index(column[-2]), _COORDS.index(column[-1])] = values[:, place]
    order = natural_order(labels)
    uv, weights = cleaned(torch.from_numpy(table[order][..., :2]), torch.from_numpy(table[order][..., 2]))
    short = tuple(re.split(r"[/\\]", labels[row])[-1] for row in order)
    return Poses(_FORMAT, names, None, uv, weights, short, individuals)
