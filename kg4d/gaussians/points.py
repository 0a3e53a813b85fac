"""Point clouds from files: the vertices of a PLY, or an array."""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.errors import InputError
from kg4d.geometry.point_sets import nearest_neighbours
from kg4d.utils.reading import regular

_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


_NEIGHBOURS = 8


class PointCloud(NamedTuple):
    """Points with or without colours."""

    points: Float[Tensor, "N 3"]  # world units
    colors: Float[Tensor, "N 3"] | None  # RGB in [0, 1]


def read_points(path: str | Path) -> PointCloud:
    """Read a `.ply` (x, y, z; red, green, blue if it has them) or a `.npy` ((N, 3), or (N, 6) with RGB in [0, 1]).

    Raises:
        InputError: The file is missing, is neither format, or holds no points.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(path, "no such file", "give the point cloud as a .ply or .npy file")
    try:
        regular(path)
        match path.suffix.lower():
            case ".ply":
                cloud = _from_ply(path)
            case ".npy":
                cloud = _from_array(np.load(path, mmap_mode="r", allow_pickle=False))
            case _:
                raise InputError(path, "not a point cloud that can be read", "give a .ply or .npy file")
    except InputError:
        raise
    except Exception as error:  # whatever the readers make of bytes that are no point cloud
        what = f"cannot be read as a point cloud: {str(error)[:200]}"
        raise InputError(path, what, "give a .ply or .npy file") from error
    if not len(cloud.points) or not bool(torch.isfinite(cloud.points).all()):
        raise InputError(path, "holds no points, or points that are not finite", "give a point cloud")
    return cloud


def without_outliers(cloud: PointCloud) -> PointCloud:
    """The points that are not alone: whose mean distance to 8 others is at most two deviations above its mean.

    Source: Rusu et al. 2008, "Towards 3D point cloud based object maps for household environments", section 3.1.
    """
    if len(cloud.points) <= _NEIGHBOURS:
        return cloud
    away = nearest_neighbours(cloud.points, _NEIGHBOURS).distances.mean(-1)
    kept = away <= away.mean() + 2 * away.std()
    return PointCloud(cloud.points[kept], None if cloud.colors is None else cloud.colors[kept])


def _from_array(values: np.ndarray) -> PointCloud:
    if values.ndim != 2 or values.shape[1] not in (3, 6):
        raise ValueError(f"expected an array of shape (N, 3) or (N, 6), found {values.shape}")
    if values.dtype.kind not in "fiu":
        raise ValueError(f"expected numbers, found {values.dtype}")
    table = torch.from_numpy(values.astype(np.float32))
    return PointCloud(table[:, :3], table[:, 3:] if table.shape[1] == 6 else None)


def _from_ply(path: Path) -> PointCloud:
    with path.open("rb") as file:
        columns = _ply_vertices(file)
    points = np.stack([columns[axis] for axis in "xyz"], -1).astype(np.float32)
    colors = None
    if all(name in columns for name in ("red", "green", "blue")):
        raw = np.stack([columns[name] for name in ("red", "green", "blue")], -1)
        top = np.iinfo(raw.dtype).max if np.issubdtype(raw.dtype, np.integer) else 1
        colors = torch.from_numpy((raw / top).astype(np.float32))
    return PointCloud(torch.from_numpy(points), colors)


_MOST_POINTS = 10**8


def _rows(file: BinaryIO, count: int) -> np.ndarray:
    rows = np.loadtxt(file, max_rows=count, ndmin=2)
    if len(rows) < count:
        raise ValueError(f"it ends after {len(rows)} of {count} points")
    return rows


def _ply_vertices(file: BinaryIO) -> Mapping[str, np.ndarray]:
    """The columns of the element `vertex`, which must come first, as in every point cloud."""
    if file.readline().strip() != b"ply":
        raise ValueError("the first line is not 'ply'")
    form, count, element = "", 0, ""
    fields: list[tuple[str, str]] = []
    while (line := file.readline().decode("ascii").split()) != ["end_header"]:
        match line:
            case ["format", form, _]:
                pass
            case ["element", element, number]:
                if not fields and element != "vertex":
                    raise ValueError(f"the first element is {element!r}, not 'vertex'")
                count = int(number) if element == "vertex" else count
            case ["property", kind, name] if element == "vertex":
                fields.append((name, _PLY_TYPES[kind]))
            case []:
                raise ValueError("the header has no end")
    if count > _MOST_POINTS:
        raise ValueError(f"it says that it holds {count:.3g} points")
    if form == "ascii":
        rows = _rows(file, count)
        return {name: rows[:, i].astype(kind) for i, (name, kind) in enumerate(fields)}
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}[form]
    dtype = np.dtype([(name, order + kind) for name, kind in fields])
    table = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return {name: table[name] for name in dtype.names or ()}
