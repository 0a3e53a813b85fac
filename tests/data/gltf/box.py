"""A tiny glTF file, written byte by byte: two boxes on two bones."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BEND = 60.0  # degrees
_KINDS = {"f": 5126, "H": 5123}
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def write_box(path: Path, scale: float = 1.0, yaw: float = 0.0, change: Callable[[dict], object] | None = None) -> Path:
    """Two boxes along +Y, one above the other; the upper one hangs on a bone that bends by `BEND` degrees about +Z."""
    data, views, accessors = bytearray(), [], []

    def add(values: np.ndarray) -> int:
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": values.nbytes})
        kind, width = _KINDS[values.dtype.char], 1 if values.ndim == 1 else values.shape[1]
        accessors.append({"bufferView": len(views) - 1, "componentType": kind, "count": len(values)})
        accessors[-1]["type"] = _TYPES[width]
        data.extend(values.tobytes() + bytes(-values.nbytes % 4))
        return len(views) - 1

    corner = np.array([[x, y, z] for x in (-0.2, 0.2) for y in (0.0, 1.0) for z in (-0.2, 0.2)])
    points = np.concatenate([corner, corner + np.array([0.0, 1, 0])]).astype(np.float32) * np.float32(scale)
    faces = [[f[0] + o, f[i] + o, f[i + 1] + o] for o in (0, 8) for f in _FACES for i in (1, 2)]
    joints, weights = np.zeros((16, 4), np.uint16), np.zeros((16, 4), np.float32)
    joints[8:, 0], weights[:, 0] = 1, 1
    bind = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    bind[1, 3, 1] = -scale  # columns first: the bone stands at (0, scale, 0)
    half = math.radians(BEND) / 2
    turned = np.array([[0, 0, 0, 1], [0, 0, math.sin(half), math.cos(half)]], np.float32)
    around = math.radians(yaw) / 2
    attributes = {"POSITION": add(points), "JOINTS_0": add(joints), "WEIGHTS_0": add(weights)}
    red = {"pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.1, 0.1, 1.0]}}
    primitive = {"attributes": attributes, "indices": add(np.array(faces, np.uint16).flatten()), "material": 0}
    sampler = {"input": add(np.array([0, 2], np.float32)), "output": add(turned)}
    table: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0, 3]}],
        "nodes": [
            {"name": "all", "children": [1], "rotation": [0, math.sin(around), 0, math.cos(around)]},
            {"name": "lower", "children": [2]},
            {"name": "upper", "translation": [0, scale, 0]},
            {"mesh": 0, "skin": 0},
        ],
        "meshes": [{"primitives": [primitive]}],
        "materials": [red],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": add(bind.reshape(2, 16))}],
        "animations": [
            {
                "name": "Bend",
                "samplers": [sampler],
                "channels": [{"sampler": 0, "target": {"node": 2, "path": "rotation"}}],
            }
        ],
        "bufferViews": views,
        "accessors": accessors,
        "buffers": [{"byteLength": len(data)}],
    }
    if change is not None:
        change(table)
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + bytes(data)
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts)
    return path
