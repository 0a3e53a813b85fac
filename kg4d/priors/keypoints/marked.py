"""Keypoints that a person marked in the first frame: a JSON file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.keypoints.skeleton import first_below_cycle
from kg4d.utils.files import replacing
from kg4d.utils.reading import is_finite, read_json


@dataclass(frozen=True)
class SupportKeypoints:
    """J keypoints of one image, and the bones between them.

    Attributes:
        names: J names, all different.
        parents: Index of the parent of each keypoint, -1 for a root.
        uv: Pixel positions.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    uv: Float[Tensor, "J 2"]


def read_support(path: str | Path, width: int, height: int) -> SupportKeypoints:
    """Read `{"names": [...], "parents": [...], "uv": [[x, y], ...]}`; a parent is an index, a name or null.

    Args:
        path: The JSON file.
        width: Width of the image, px.
        height: Height of the image, px.

    Raises:
        InputError: The file is missing or malformed, counts differ, names repeat, the bones form a cycle, or a
            keypoint lies outside the image.
    """
    path = Path(path)
    try:
        table = read_json(path)
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), "give a JSON file of keypoints") from error
    except ValueError as error:
        raise InputError(path, f"is not valid JSON: {str(error)[:200]}", "correct it") from error
    return parse_support(table, path, width, height)


def parse_support(table: Any, where: str | Path, width: int, height: int) -> SupportKeypoints:
    """Check the content of a file of keypoints; see `read_support`.

    Args:
        table: The parsed JSON.
        where: Name of its source, for errors.
        width: Width of the image, px.
        height: Height of the image, px.

    Raises:
        InputError: As `read_support`.
    """
    names, tree = parse_names(table, where)
    _check_count(table.get("uv"), "uv", names, where)
    points = [_point(row, f"{where}: uv[{index}]", width, height) for index, row in enumerate(table["uv"])]
    return SupportKeypoints(names, tree, torch.tensor(points))


def parse_names(table: Any, where: str | Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Check the names of keypoints and the bones between them.

    Args:
        table: The parsed JSON.
        where: Name of its source, for errors.

    Returns:
        The names, and the index of the parent of each, -1 for a root.

    Raises:
        InputError: Names are missing or repeat, or the bones are not between them or form a cycle.
    """
    if not isinstance(table, dict) or not isinstance(table.get("names"), list) or not table["names"]:
        raise InputError(
            f"{where}: names", "is missing or empty", 'write {"names": [...], "parents": [...], "uv": [...]}'
        )
    names = table["names"]
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{where}: names[{index}]", f"{name!r} is no name", "give every keypoint a name")
        if name in names[:index]:
            raise InputError(f"{where}: names[{index}]", f"{name!r} is there twice", "give every keypoint its own name")
    parents = table.get("parents", [-1] * len(names))
    _check_count(parents, "parents", names, where)
    tree = [_parent(parent, names, f"{where}: parents[{index}]") for index, parent in enumerate(parents)]
    below = first_below_cycle(tree)
    if below is not None:
        what = f"the bones above {names[below]!r} run in a circle"
        raise InputError(f"{where}: parents", what, "make them a tree")
    return tuple(names), tuple(tree)


def write_support(path: str | Path, keypoints: SupportKeypoints) -> None:
    """Write the file that `read_support` reads; it appears complete or not at all."""
    table = {"names": keypoints.names, "parents": keypoints.parents, "uv": keypoints.uv.tolist()}
    with replacing(path) as part:
        part.write_text(json.dumps(table, indent=1), encoding="utf-8")


def _check_count(rows: Any, key: str, names: Sequence[str], where: str | Path) -> None:
    if not isinstance(rows, list) or len(rows) != len(names):
        found = len(rows) if isinstance(rows, list) else "no list of"
        raise InputError(f"{where}: {key}", f"{found} entries for {len(names)} names", "give one for each name")


def _parent(value: Any, names: list[str], where: str) -> int:
    if value is None or (isinstance(value, str) and value in names):
        return -1 if value is None else names.index(value)
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value < len(names):
        raise InputError(where, f"{value!r} is no keypoint", f"give an index from 0 to {len(names) - 1}, or -1")
    return value


def _point(row: Any, where: str, width: int, height: int) -> list[float]:
    numbers = isinstance(row, list) and len(row) == 2 and all(is_finite(value) for value in row)
    if not numbers:
        raise InputError(where, f"{row!r:.80} is no pixel position", "give [x, y]")
    if not (0 <= row[0] <= width and 0 <= row[1] <= height):
        what = f"({row[0]:g}, {row[1]:g}) lies outside the image of {width} x {height} px"
        raise InputError(where, what, "give pixels of the input's first frame")
    return [float(value) for value in row]
