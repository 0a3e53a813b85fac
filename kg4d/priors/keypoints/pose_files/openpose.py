"""OpenPose: a JSON file for each frame, with any number of people in it.

Source: Cao et al. 2019, "OpenPose"; orders of the keypoints: the output format in its documentation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.priors.keypoints.pose_files.poses import Poses, cleaned, natural_order

ENDING = "_keypoints.json"
_FORMAT = "OpenPose"
_UPPER = (
    ("neck", None),
    ("right_shoulder", "neck"),
    ("right_elbow", "right_shoulder"),
    ("right_wrist", "right_elbow"),
    ("left_shoulder", "neck"),
    ("left_elbow", "left_shoulder"),
    ("left_wrist", "left_elbow"),
)
_FACE = (("right_eye", "nose"), ("left_eye", "nose"), ("right_ear", "right_eye"), ("left_ear", "left_eye"))


def _legs(hips: str) -> tuple[tuple[str, str | None], ...]:
    return tuple(
        bone
        for side in ("right", "left")
        for bone in ((f"{side}_hip", hips), (f"{side}_knee", f"{side}_hip"), (f"{side}_ankle", f"{side}_knee"))
    )


def _foot(side: str) -> tuple[tuple[str, str | None], ...]:
    return (
        (f"{side}_big_toe", f"{side}_ankle"),
        (f"{side}_small_toe", f"{side}_big_toe"),
        (f"{side}_heel", f"{side}_ankle"),
    )


# (name, parent) by the number of keypoints: BODY_25, COCO with a neck, MPI
_BODIES: dict[int, tuple[tuple[str, str | None], ...]] = {
    25: (
        ("nose", "neck"),
        *_UPPER,
        ("mid_hip", "neck"),
        *_legs("mid_hip"),
        *_FACE,
        *_foot("left"),
        *_foot("right"),
    ),
    18: (("nose", "neck"), *_UPPER, *_legs("neck"), *_FACE),
    15: (("head", "neck"), *_UPPER, *_legs("chest"), ("chest", "neck")),
}


def is_openpose(table: Any) -> bool:
    """Whether the content of a JSON file is of this format."""
    return isinstance(table, dict) and isinstance(table.get("people"), list)


def parse_openpose(frames: Sequence[tuple[Path, Any]]) -> Poses:
    """The poses in the files of one or several frames.

    Args:
        frames: Each file and its parsed content, for which `is_openpose` holds.

    Raises:
        InputError: An entry is malformed, nobody was found in any frame, or the body is none of those known.
    """
    order = natural_order([path.name for path, _ in frames])
    files = [frames[index] for index in order]
    people = [[_points(person, path) for person in table["people"]] for path, table in files]
    counts = {len(rows) for found in people for rows in found}
    if not counts:
        what = "(OpenPose) has nobody in it" if len(files) == 1 else "(OpenPose) has nobody in any frame"
        raise InputError(files[0][0], what, "detect keypoints in the input's frames")
    if len(counts) > 1 or not counts <= set(_BODIES):
        what = f"has {' and '.join(map(str, sorted(counts)))} keypoints for a person"
        raise InputError(files[0][0], what, f"give one of OpenPose's bodies: {', '.join(map(str, sorted(_BODIES)))}")
    [count] = counts
    values = torch.full((len(files), max(len(found) for found in people), count, 3), torch.nan)
    for row, found in enumerate(people):
        for person, points in enumerate(found):
            values[row, person] = points
    uv, weights = cleaned(values[..., :2], values[..., 2])
    if bool((weights > 0).any()) and float(uv.max()) <= 1 + 0.5:
        raise InputError(files[0][0], "positions are not in pixels", "run OpenPose with keypoint_scale 0")
    names = tuple(name for name, _ in _BODIES[count])
    parents = tuple(-1 if parent is None else names.index(parent) for _, parent in _BODIES[count])
    labels = tuple(path.name.removesuffix(ENDING) for path, _ in files)
    return Poses(_FORMAT, names, parents, uv, weights, labels)


def _points(person: Any, path: Path) -> Float[Tensor, "J 3"]:
    values = person.get("pose_keypoints_2d", person.get("pose_keypoints")) if isinstance(person, dict) else None
    if not isinstance(values, list) or len(values) % 3 or not all(isinstance(value, int | float) for value in values):
        what = f"{values!r:.60} is no list of x, y, confidence"
        raise InputError(f"{path}: pose_keypoints_2d", what, "give three numbers for each keypoint")
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 3)
