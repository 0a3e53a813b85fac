"""HDF5 files: tables that pandas has written for DeepLabCut, and the analysis files of SLEAP.

pandas keeps the names of columns as pickles of lists and words; nothing else is unpickled.

Sources: pandas' documentation of `HDFStore`; Pereira et al. 2022, "SLEAP".
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from kg4d.errors import InputError
from kg4d.priors.keypoints.pose_files.deeplabcut import from_columns
from kg4d.priors.keypoints.pose_files.poses import Poses, cleaned, tree_of

MAGIC = b"\x89HDF\r\n\x1a\n"
_SLEAP_DIMS = ("track", "xy", "node", "frame")  # where the file does not say


def read_hdf5(path: Path) -> Poses:
    """Read a table of DeepLabCut or an analysis file of SLEAP.

    Args:
        path: A file that begins with `MAGIC`.

    Raises:
        InputError: h5py is not installed, or the file is damaged or holds something else.
    """
    with _opened(path) as file:
        if "tracks" in file and "node_names" in file:
            return _sleap(file)
        for group in file.values():
            if "table" in group and "non_index_axes" in group.attrs:
                return _frame_table(group, path)
            if "block0_values" in group:
                return _frame(group, path)
        holds = ", ".join(map(str, file)) or "nothing"
        raise InputError(path, f"holds neither DeepLabCut's table nor SLEAP's tracks, but {holds:.80}", _export())


def _export() -> str:
    return "give DeepLabCut's predictions, or export an analysis HDF5 file from SLEAP"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        remedy = 'pip install "kg4d[hdf5]", or give the CSV or JSON file'
        raise InputError(path, "is an HDF5 file, which needs h5py, which is not installed", remedy) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # damaged files fail in many ways, deep inside the library
        raise InputError(path, f"is a damaged HDF5 file: {str(error)[:120]}", "export or copy it again") from error


def _sleap(file: Any) -> Poses:
    positions = _arranged(file, "tracks", _SLEAP_DIMS, ("frame", "track", "node", "xy"))
    names = _words(file["node_names"])
    scores = np.ones(positions.shape[:3])
    if "point_scores" in file:
        without_xy = tuple(dim for dim in _SLEAP_DIMS if dim != "xy")
        given = _arranged(file, "point_scores", without_xy, ("frame", "track", "node"))
        scores = np.where(np.isfinite(given), given, 1.0)  # a person set those without a score
    uv, weights = cleaned(torch.from_numpy(positions).double(), torch.from_numpy(scores).double())
    edges = np.asarray(file["edge_inds"]).reshape(-1, 2).tolist() if "edge_inds" in file else []
    tracks = _words(file["track_names"]) if "track_names" in file else ()
    if len(tracks) != positions.shape[1]:
        tracks = tuple(f"track {index}" for index in range(positions.shape[1]))
    labels = tuple(str(index) for index in range(len(positions)))
    parents = tree_of([(a, b) for a, b in edges], len(names)) if edges else None
    if len(names) != positions.shape[2] or not all(0 <= end < len(names) for edge in edges for end in edge):
        raise ValueError(f"{len(names)} nodes, {positions.shape[2]} of them in the tracks, and edges {edges}")
    return Poses("SLEAP", names, parents, uv, weights, labels, tracks)


def _arranged(file: Any, name: str, default: Sequence[str], wanted: Sequence[str]) -> Float[np.ndarray, "*axes"]:
    """A data set with its axes in the wanted order."""
    given = file[name].attrs.get("dims")
    dims = list(default) if given is None else json.loads(given)
    return np.asarray(file[name]).transpose([dims.index(dim) for dim in wanted])


def _frame_table(group: Any, path: Path) -> Poses:
    """A pandas frame in the format `table`."""
    table, values, columns = group["table"], [], []
    for name in table.dtype.names:
        if name.startswith("values_block"):
            columns += [tuple(map(str, column)) for column in _plain(table.attrs[f"{name}_kind"])]
            values.append(np.asarray(table[name], dtype=np.float64))
    return from_columns(columns, np.concatenate(values, axis=1), _labels(table["index"]), path)


def _frame(group: Any, path: Path) -> Poses:
    """A pandas frame in the format `fixed`."""
    values, columns = [], []
    for block in range(int(group.attrs["nblocks"])):
        columns += list(zip(*_levels(group, f"block{block}_items"), strict=True))
        values.append(np.asarray(group[f"block{block}_values"], dtype=np.float64))
    labels = _labels(group["axis1"]) if "axis1" in group else _levels(group, "axis1")[-1]
    return from_columns(columns, np.concatenate(values, axis=1), labels, path)


def _levels(group: Any, name: str) -> list[tuple[str, ...]]:
    """The levels of a hierarchical index: for each level the word of every entry."""
    count = int(group.attrs[f"{name}_nlevels"])
    words = [_words(group[f"{name}_level{level}"]) for level in range(count)]
    return [tuple(words[level][code] for code in group[f"{name}_label{level}"]) for level in range(count)]


def _labels(index: Any) -> list[str]:
    return list(_words(index))


def _words(data: Any) -> tuple[str, ...]:
    values = np.asarray(data).reshape(-1)
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist())


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"refused {module}.{name}: only lists of words are admitted")


def _plain(data: bytes) -> Any:
    return _PlainUnpickler(BytesIO(bytes(data))).load()
