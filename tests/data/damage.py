"""Ways to change a scene folder."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Damage = Callable[[Path], None]


def edit(name: str, change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / f"transforms_{name}.json"
        table = json.loads(path.read_text())
        change(table)
        path.write_text(json.dumps(table))

    return damage


def arrays(file: str, **changes: Callable[[np.ndarray], np.ndarray] | None) -> Damage:
    """Replace arrays by functions of themselves; None removes one."""

    def damage(folder: Path) -> None:
        with np.load(folder / file) as archive:
            kept = dict(archive)
        for name, change in changes.items():
            value = kept.pop(name)
            if change is not None:
                kept[name] = change(value)
        np.savez(folder / file, **kept)

    return damage


def text(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def image(name: str, width: int, height: int, alpha: int = 255, mode: str = "RGBA") -> Damage:
    return lambda folder: Image.new("RGBA", (width, height), (9, 9, 9, alpha)).convert(mode).save(folder / name)


def set_frame(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["frames"][index].update(values)


def drop_frame_key(index: int, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["frames"][index].pop(key) and None


def keep(count: int) -> Callable[[dict[str, Any]], None]:
    return lambda table: table.update(frames=table["frames"][:count])


def put(where: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[where] = value
        return array

    return change


def camera(distance: float, turned: bool = False) -> list[list[float]]:
    """OpenGL camera-to-world on +Z, looking at the origin or away from it."""
    sign = -1.0 if turned else 1.0
    return [[sign, 0, 0, 0], [0, 1, 0, 0], [0, 0, sign, distance], [0, 0, 0, 1]]


def every_camera(matrix: list[list[float]]) -> Callable[[dict[str, Any]], None]:
    return lambda table: [frame.update(transform_matrix=matrix) for frame in table["frames"]] and None


def no_focal_length(table: dict[str, Any]) -> None:
    del table["fl_x"], table["camera_angle_x"]


def angle_in_degrees(table: dict[str, Any]) -> None:
    del table["fl_x"]
    table["camera_angle_x"] = 49.1


def as_dnerf(folder: Path, degrees: float) -> None:
    """Rewrite as the D-NeRF data set does: one angle, a moving camera, bare frames, nothing else."""
    for name in ("transforms_ring.json", "transforms_test.json", "keypoints.npz", "flow.npz"):
        (folder / name).unlink()
    path = folder / "transforms_train.json"
    table = json.loads(path.read_text())
    frames = []
    for index, frame in enumerate(table["frames"]):
        angle = math.radians(degrees * index)
        matrix = [
            [math.cos(angle), 0, math.sin(angle), 4 * math.sin(angle)],
            [0, 1, 0, 0],
            [-math.sin(angle), 0, math.cos(angle), 4 * math.cos(angle)],
            [0, 0, 0, 1],
        ]
        bare = {"file_path": frame["file_path"], "rotation": 0.3, "time": frame["time"], "transform_matrix": matrix}
        frames.append(bare)
    path.write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames}))
