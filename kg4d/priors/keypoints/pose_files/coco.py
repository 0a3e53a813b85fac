"""COCO keypoints: annotations with images and categories, or the plain list of a detector's results.

Source: Lin et al. 2014, "Microsoft COCO", and https://cocodataset.org/#format-data.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.priors.keypoints.people import COCO_NAMES, COCO_PARENTS
from kg4d.priors.keypoints.pose_files.poses import Poses, cleaned, natural_order, tree_of
from kg4d.utils.reading import is_finite

_FORMAT = "COCO keypoints"
_REMEDY = "give the three numbers x, y, v of each keypoint"


def is_coco(table: Any) -> bool:
    """Whether the content of a JSON file is of this format."""
    rows = table.get("annotations") if isinstance(table, dict) else table
    if not isinstance(rows, list) or not rows:
        return False
    return any(isinstance(row, dict) and "keypoints" in row and "image_id" in row for row in rows)


def parse_coco(table: Any, path: Path) -> Poses:
    """The poses in the content of a file for which `is_coco` holds.

    Of labels, v = 2 is confidence 1, and v = 1 (hidden) one half; of results, and where v is not whole, v itself is.

    Args:
        table: The parsed JSON.
        path: The file, for errors.

    Raises:
        InputError: An entry is malformed, or numbers of keypoints differ.
    """
    annotated = isinstance(table, dict)
    found = [row for row in (table["annotations"] if annotated else table) if isinstance(row, dict)]
    found = [row for row in found if row.get("keypoints") and "image_id" in row]
    if not found:
        raise InputError(f"{path}: annotations", "have no keypoints", _REMEDY)
    category = Counter(str(row.get("category_id")) for row in found).most_common(1)[0][0]
    found = [row for row in found if str(row.get("category_id")) == category]
    points = [_points(row["keypoints"], f"{path}: keypoints of image {row['image_id']}") for row in found]
    if len({len(rows) for rows in points}) > 1:
        raise InputError(f"{path}: keypoints", "their number differs", _REMEDY)
    names, parents = _skeleton(table if annotated else {}, category, len(points[0]), path)
    images = _images(table if annotated else {}, found, path)
    scale = 2.0 if annotated and all((rows[:, 2] % 1 == 0).all() for rows in points) else 1.0
    places = _places(found)
    values = torch.full((len(images), max(places.slots) + 1, len(names), 3), torch.nan)
    index = {key: row for row, key in enumerate(images)}
    for row, slot, rows in zip(found, places.slots, points, strict=True):
        values[index[str(row["image_id"])], slot] = rows
    uv, weights = cleaned(values[..., :2], values[..., 2] / scale)
    sizes = [image.size for image in images.values() if image.size is not None]
    labels = tuple(image.label for image in images.values())
    known = tuple(sizes) if len(sizes) == len(labels) else None
    return Poses(_FORMAT, names, parents, uv, weights, labels, places.individuals, known)


class _Image(NamedTuple):
    label: str
    size: tuple[int, int] | None  # width and height, px


class _Places(NamedTuple):
    slots: list[int]  # for each annotation the index of its individual
    individuals: tuple[str, ...] | None  # their names, where they are tracked


def _places(found: Sequence[Mapping[str, Any]]) -> _Places:
    tracks = [row.get("track_id") for row in found]
    if all(track is not None for track in tracks):
        names = sorted({str(track) for track in tracks})
        return _Places([names.index(str(track)) for track in tracks], tuple(f"track {name}" for name in names))
    seen: Counter[str] = Counter()
    slots = []
    for row in found:
        slots.append(seen[str(row["image_id"])])
        seen[str(row["image_id"])] += 1
    return _Places(slots, None)


def _points(values: Any, where: str) -> Float[Tensor, "J 3"]:
    flat = isinstance(values, list) and len(values) % 3 == 0 and all(isinstance(value, int | float) for value in values)
    if not flat:
        raise InputError(where, f"{values!r:.60} is no list of x, y, v", _REMEDY)
    rows = torch.tensor(values, dtype=torch.float64).reshape(-1, 3)
    if not bool((rows[:, 2].nan_to_num() >= 0).all()):
        raise InputError(where, "v is negative", _REMEDY)
    return rows.float()


def _skeleton(
    table: Mapping[str, Any], category: str, count: int, path: Path
) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Names and parents: of the category, else those of COCO's people where the number is theirs, else none."""
    categories = [row for row in table.get("categories") or [] if isinstance(row, dict)]
    own = next((row for row in categories if str(row.get("id")) == category and row.get("keypoints")), None)
    if own is None:
        if count == len(COCO_NAMES):
            return COCO_NAMES, COCO_PARENTS
        return tuple(f"keypoint {index}" for index in range(count)), None
    names = tuple(str(name) for name in own["keypoints"])
    if len(names) != count or len(set(names)) != count:
        what = f"{len(set(names))} different names for {count} keypoints"
        raise InputError(f"{path}: categories", what, "give every keypoint its own name")
    if names == COCO_NAMES:
        return names, COCO_PARENTS
    edges = own.get("skeleton") or []
    for edge in edges:
        if not (isinstance(edge, list) and len(edge) == 2 and all(end in range(1, count + 1) for end in edge)):
            raise InputError(f"{path}: skeleton", f"{edge!r:.40} is no bone", f"give pairs from 1 to {count}")
    return names, tree_of([(a - 1, b - 1) for a, b in edges], count) if edges else None


def _images(table: Mapping[str, Any], found: Sequence[Mapping[str, Any]], path: Path) -> dict[str, _Image]:
    """The images by their id, in the natural order of their names; those without annotations included."""
    images = {}
    for row in table.get("images") or []:
        if not isinstance(row, dict) or "id" not in row:
            raise InputError(f"{path}: images", f"{row!r:.40} has no id", "give every image its id")
        width, height = row.get("width", 0), row.get("height", 0)
        sized = is_finite(width) and is_finite(height) and min(width, height) > 0
        size = (int(width), int(height)) if sized else None
        images[str(row["id"])] = _Image(str(row.get("file_name", row["id"])), size)
    for row in found:
        images.setdefault(str(row["image_id"]), _Image(str(row["image_id"]), None))
    keys = list(images)
    return {keys[index]: images[keys[index]] for index in natural_order([images[key].label for key in keys])}
