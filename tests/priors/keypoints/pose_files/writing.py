"""The same keypoints in every format, as the programs write them."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from torch import Tensor

NAMES = ("nose", "left ear", "tail")


def write_coco(path: Path, uv: Tensor, weights: Tensor) -> Path:
    """Predictions with images of 96 x 64 px, in any order, each individual with its track."""
    frames, individuals = weights.shape[:2]
    images = [{"id": 7 + t, "file_name": f"f{t}.jpg", "width": 96, "height": 64} for t in range(frames)]
    rows = [
        {
            "image_id": 7 + t,
            "category_id": 3,
            "track_id": i,
            "keypoints": np.column_stack([uv[t, i], weights[t, i]]).round(6).reshape(-1).tolist(),
        }
        for t in range(frames)
        for i in range(individuals)
    ]
    category = {"id": 3, "keypoints": list(NAMES), "skeleton": [[1, 2], [2, 3], [3, 1]]}
    table = {"images": images[::-1], "annotations": rows[::-1], "categories": [{"id": 1}, category]}
    path.write_text(json.dumps(table))
    return path


def dlc_columns(individuals: int) -> list[tuple[str, ...]]:
    return [
        ("net", f"mouse{i}", name, coord)
        for i in range(individuals)
        for name in NAMES
        for coord in ("x", "y", "likelihood")
    ]


def dlc_values(uv: Tensor, weights: Tensor) -> np.ndarray:
    return np.concatenate([uv, weights[..., None]], axis=-1).reshape(len(uv), -1).astype(np.float64)


def write_dlc_csv(path: Path, uv: Tensor, weights: Tensor) -> Path:
    columns, values = dlc_columns(weights.shape[1]), dlc_values(uv, weights)
    head = [[title, *words] for title, words in zip(("scorer", "individuals", "bodyparts", "coords"), zip(*columns))]
    body = [[str(t), *("" if np.isnan(cell) else f"{cell:.6f}" for cell in row)] for t, row in enumerate(values)]
    path.write_text("\n".join(",".join(row) for row in head + body) + "\n")
    return path


def write_dlc_table(path: Path, uv: Tensor, weights: Tensor) -> Path:
    """As pandas writes it with format="table"."""
    columns, values = dlc_columns(weights.shape[1]), dlc_values(uv, weights)
    kind = np.dtype([("index", "<i8"), ("values_block_0", "<f8", (values.shape[1],))])
    rows = np.array([(t, row) for t, row in enumerate(values)], dtype=kind)
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, columns)], protocol=0))
        group.create_dataset("table", data=rows).attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0))
    return path


def write_dlc_fixed(path: Path, uv: Tensor, weights: Tensor) -> Path:
    """As pandas writes it with format="fixed", the rows named by images."""
    columns, values = dlc_columns(weights.shape[1]), dlc_values(uv, weights)
    rows = [("labeled-data", "clip", f"img{t}.png") for t in range(len(values))]
    with h5py.File(path, "w") as file:
        group = file.create_group("keypoints")
        group.attrs["nblocks"] = 1
        for name, entries in (("block0_items", columns), ("axis1", rows)):
            group.attrs[f"{name}_nlevels"] = len(entries[0])
            for level, words in enumerate(zip(*entries)):
                known = sorted(set(words))
                group[f"{name}_level{level}"] = np.array(known, dtype="S")
                group[f"{name}_label{level}"] = np.array([known.index(word) for word in words], np.int8)
        group["block0_values"] = values
    return path


def write_sleap(path: Path, uv: Tensor, weights: Tensor, dims: bool = False) -> Path:
    """In the order of MATLAB's columns; or in that of Python, which the file then says."""
    there = weights[..., None].numpy() > 0
    tracks = np.where(there, uv.numpy(), np.nan).astype(np.float64)
    with h5py.File(path, "w") as file:
        if dims:
            file.create_dataset("tracks", data=tracks).attrs["dims"] = json.dumps(["frame", "track", "node", "xy"])
            file["point_scores"] = weights.numpy()
            file["point_scores"].attrs["dims"] = json.dumps(["frame", "track", "node"])
        else:
            file["tracks"], file["point_scores"] = tracks.transpose(1, 3, 2, 0), weights.numpy().transpose(1, 2, 0)
        file["node_names"] = np.array(NAMES, dtype="S")
        file["track_names"] = np.array([f"mouse{i}" for i in range(weights.shape[1])], dtype="S")
        file["edge_inds"] = np.array([[0, 1], [1, 2]])
    return path


def write_sleap_standard(path: Path, uv: Tensor, weights: Tensor) -> Path:
    return write_sleap(path, uv, weights, dims=True)


WRITERS: dict[str, tuple[str, Callable[[Path, Tensor, Tensor], Path]]] = {
    "coco": ("k.json", write_coco),
    "deeplabcut csv": ("k.csv", write_dlc_csv),
    "deeplabcut table": ("k.h5", write_dlc_table),
    "deeplabcut fixed": ("k.h5", write_dlc_fixed),
    "sleap": ("k.h5", write_sleap),
    "sleap standard": ("k.h5", write_sleap_standard),
}


def openpose_frame(people: list[Tensor]) -> str:
    """The content of the file of one frame; each of the people is (J, 3)."""
    rows = [{"person_id": [-1], "pose_keypoints_2d": person.reshape(-1).tolist()} for person in people]
    return json.dumps({"version": 1.3, "people": rows})
