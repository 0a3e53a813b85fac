"""Writing a scene folder that `kg4d.data.scene.load_scene` reads back."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.images import write_png
from kg4d.data.readers.scene_folder import FLOW, KEYPOINTS, POINTS, PREVIEW, RECORD, REFERENCE, RING, TEST
from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.errors import InputError
from kg4d.utils.files import replacing_folder
from kg4d.utils.reading import regular


def write_scene(
    scene: Scene,
    folder: str | Path,
    record: Mapping[str, Any] | None = None,
    preview: Float[Tensor, "height width 3"] | None = None,
) -> None:
    """Write a scene; the folder appears complete or not at all.

    Images become 8-bit PNGs and the flow float16. `keypoints.npz` gets `xyz` if the true positions are known, and the
    rows of the test videos in `uv` and `visible` if the true pixels are. Neither regions of test
    images nor `truth` are written.

    Args:
        scene: What to write.
        folder: The folder to write; must not exist or be empty.
        record: How the scene came about, for its `scene.json`, which also gets the hashes of all files.
        preview: A picture that sums up the scene, RGB in [0, 1].

    Raises:
        InputError: The folder exists and is not empty, or cannot be created.
    """
    check_writable(Path(folder))
    folder = Path(folder).resolve()
    with replacing_folder(folder) as part:
        _write_posed_images(scene.reference, part / REFERENCE, "train/r_{frame:03d}")
        if scene.ring is not None:
            _write_posed_images(scene.ring, part / RING, "ring/r_{view:03d}")
        if scene.test is not None:
            _write_posed_images(scene.test, part / TEST, "test/v{view}_{frame:03d}")
        if scene.keypoints is not None:
            np.savez_compressed(part / KEYPOINTS, **_keypoint_arrays(scene.keypoints))
        if scene.flow is not None:
            np.savez_compressed(part / FLOW, **_flow_arrays(scene.flow))
        if scene.points is not None:
            colors = () if scene.points.colors is None else (scene.points.colors,)
            np.save(part / POINTS, torch.cat([scene.points.points, *colors], dim=-1).cpu().numpy())
        if preview is not None:
            write_png(part / PREVIEW, preview)
        if record is not None:
            names = [path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()]
            table = {**record, "files": hashes(part, names)}
            (part / RECORD).write_text(json.dumps(table, indent=1), encoding="utf-8")


def check_writable(folder: Path) -> None:
    """Check that a scene can be written to a folder.

    Raises:
        InputError: The folder exists and is not empty, is the current folder, or lies below a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(folder, "exists already", "choose another folder or remove it")
    if folder.resolve() == Path.cwd():
        raise InputError(folder, "is the current folder, which cannot be replaced", "name a folder inside it")
    above = next(parent for parent in folder.resolve().parents if parent.exists())
    if not above.is_dir():
        raise InputError(folder, f"{above} is a file", "choose another folder")


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files in a folder, by name relative to the folder."""
    return {name: hashlib.sha256(regular(folder / name).read_bytes()).hexdigest() for name in sorted(names)}


def _write_posed_images(posed: PosedImages, path: Path, pattern: str) -> None:
    cameras, frames = posed.cameras, []
    lenses = [_lens(K) for K in cameras.Ks]
    own = any(lens != lenses[0] for lens in lenses)
    matrices = _camera_to_worlds(cameras.viewmats)
    for index, (frame, view) in enumerate(zip(posed.frames.tolist(), posed.views.tolist(), strict=True)):
        file_path = pattern.format(frame=frame, view=view)
        write_png(path.parent / f"{file_path}.png", posed.images[index])
        frames.append(
            {
                "file_path": f"./{file_path}",
                "time": posed.times[index].item(),
                "transform_matrix": matrices[index].tolist(),
                "frame_index": frame,
                "view": view,
                **(lenses[index] if own else {}),
            }
        )
    angles = {
        "camera_angle_x": 2 * math.atan(cameras.width / (2 * lenses[0]["fl_x"])),
        "camera_angle_y": 2 * math.atan(cameras.height / (2 * lenses[0]["fl_y"])),
    }
    table = {**angles, "w": cameras.width, "h": cameras.height, **lenses[0], "frames": frames}
    path.write_text(json.dumps(table, indent=1), encoding="utf-8")


def _lens(K: Float[Tensor, "3 3"]) -> dict[str, float]:
    return dict(zip(("fl_x", "fl_y", "cx", "cy"), K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(), strict=True))


def _camera_to_worlds(viewmats: Float[Tensor, "M 4 4"]) -> Float[Tensor, "M 4 4"]:
    """OpenCV world-to-camera to OpenGL camera-to-world."""
    opengl = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64, device=viewmats.device)
    matrices: Tensor = torch.linalg.inv(viewmats.double()) * opengl
    return matrices


def _keypoint_arrays(keypoints: Keypoints) -> dict[str, Any]:
    uv, seen = keypoints.uv[None], (keypoints.weights > 0)[None]
    if keypoints.test_uv is not None and keypoints.test_visible is not None:
        uv, seen = torch.cat([uv, keypoints.test_uv]), torch.cat([seen, keypoints.test_visible])
    arrays: dict[str, Any] = {
        "names": np.array(keypoints.names, dtype=np.str_),
        "parents": np.array(keypoints.parents, dtype=np.int32),
        "uv": uv.cpu().numpy(),
        "visible": seen.cpu().numpy(),
        "weights": keypoints.weights.cpu().numpy(),
    }
    if keypoints.ring_uv is not None and keypoints.ring_weights is not None:
        arrays["ring_uv"] = keypoints.ring_uv.cpu().numpy()
        arrays["ring_visible"] = (keypoints.ring_weights > 0).cpu().numpy()
        arrays["ring_weights"] = keypoints.ring_weights.cpu().numpy()
    if keypoints.leans is not None:
        arrays["leans"] = keypoints.leans.cpu().numpy()
    if keypoints.truth is not None:
        arrays["xyz"] = keypoints.truth.cpu().numpy()
    return arrays


def _flow_arrays(flow: Flow) -> dict[str, Any]:
    seen = (flow.weights > 0).cpu().numpy()
    return {
        "flow": flow.flow.half().cpu().numpy(),
        "valid": seen,
        "visible_next": seen,
        "weights": flow.weights.cpu().numpy(),
    }
