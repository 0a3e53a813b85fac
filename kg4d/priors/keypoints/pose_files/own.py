"""Our own JSON of tracks: `{"names": [...], "parents": [...], "uv": [[[x, y], ...], ...], "weights": [[...], ...]}`."""

from pathlib import Path
from typing import Any

import torch

from kg4d.errors import InputError
from kg4d.priors.keypoints.marked import parse_names
from kg4d.priors.keypoints.pose_files.poses import PIXEL_CENTRE, Poses, cleaned
from kg4d.utils.reading import is_finite

_REMEDY = "give [x, y] for each keypoint in each frame, or null where it is hidden"


def is_own(table: Any) -> bool:
    """Whether the content of a JSON file is of this format, in one frame or in several."""
    return isinstance(table, dict) and "names" in table and "uv" in table


def is_tracked(table: Any) -> bool:
    """Whether a file for which `is_own` holds has a list of frames, not one frame."""
    rows = table["uv"]
    first = next((row for row in rows if row), None) if isinstance(rows, list) else None
    return isinstance(first, list) and isinstance(next((point for point in first if point is not None), 0.0), list)


def parse_tracks(table: Any, path: Path) -> Poses:
    """The keypoints in the content of a file for which `is_tracked` holds.

    A keypoint is [x, y] in our pixels, in which the centre of the top left one is (0.5, 0.5), or null. `weights`, which
    may be left out, has a confidence in [0, 1] for each.

    Args:
        table: The parsed JSON.
        path: The file, for errors.

    Raises:
        InputError: An entry is malformed, or counts differ.
    """
    names, parents = parse_names(table, path)
    frames, weights = table["uv"], table.get("weights")
    if weights is not None and not (isinstance(weights, list) and len(weights) == len(frames)):
        raise InputError(f"{path}: weights", f"are not those of {len(frames)} frames", _REMEDY)
    values = torch.full((len(frames), 1, len(names), 3), torch.nan)
    for frame, row in enumerate(frames):
        sure = [1.0] * len(names) if weights is None else weights[frame]
        for key, entries in (("uv", row), ("weights", sure)):
            if not isinstance(entries, list) or len(entries) != len(names):
                raise InputError(f"{path}: {key}[{frame}]", f"is not one entry for each of {len(names)}", _REMEDY)
        for joint, (point, weight) in enumerate(zip(row, sure, strict=True)):
            if point is None:
                continue
            where = f"{path}: uv[{frame}][{joint}]"
            if not isinstance(point, list) or len(point) != 2 or not all(map(is_finite, point)):
                raise InputError(where, f"{point!r:.60} is no pixel position", _REMEDY)
            if not is_finite(weight) or not 0 <= weight <= 1:
                raise InputError(where, f"{weight!r:.40} is no weight", "give a number from 0 to 1")
            values[frame, 0, joint] = torch.tensor([*point, weight])
    uv, confidence = cleaned(values[..., :2] - PIXEL_CENTRE, values[..., 2])
    return Poses("kg4d", names, parents, uv, confidence, tuple(map(str, range(len(frames)))))
