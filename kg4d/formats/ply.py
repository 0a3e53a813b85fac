"""Gaussians as PLY, in the layout of 3D Gaussian splatting that gsplat, SuperSplat and others read.

Values are stored before activation: log-scales, opacity logits, and colours as coefficients of spherical harmonics,
those above degree 0 (`f_rest_*`) first all of red, then of green, then of blue. World axes are not changed. The layout
has no column for keypoint logits, so they are not stored.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kg4d.formats.base import Exported, ExportSource
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.harmonics import rgb_to_sh0
from kg4d.utils.files import replacing

_GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),  # zero: a legacy of the point clouds that the layout comes from
    "sh0": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "rest": (),  # f_rest_*, as many as there are
    "opacity_logits": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
_MARGIN = 1e-6  # opacities are kept this far from 0 and 1, where the logit is infinite


def pre_activation(state: GaussianState) -> dict[str, np.ndarray]:
    """Arrays of a file of Gaussians, float32.

    Returns:
        `means`, `sh0`, `sh_rest` (N, H, 3) with H = 0 where there are no harmonics, `opacity_logits` (N, 1),
        `log_scales` and unit `quats`.
    """
    quats, scales = state.ellipsoids
    columns = {
        "means": state.means,
        "sh0": rgb_to_sh0(state.colors),
        "sh_rest": state.means.new_zeros(len(state), 0, 3) if state.harmonics is None else state.harmonics,
        "opacity_logits": torch.logit(state.opacities, eps=_MARGIN)[:, None],
        "log_scales": scales.log(),
        "quats": torch.nn.functional.normalize(quats, dim=-1),
    }
    return {name: column.detach().float().cpu().numpy() for name, column in columns.items()}


def write_ply(path: str | Path, state: GaussianState) -> None:
    """Write one PLY (binary little endian, float32); the file appears complete or not at all.

    Args:
        path: The file; parent folders are created.
        state: The Gaussians. Opacities within 1e-6 of 0 or 1 are moved to that distance.
    """
    columns = pre_activation(state)
    columns["normals"] = np.zeros_like(columns["means"])
    count = columns["sh_rest"].shape[1]
    columns["rest"] = columns.pop("sh_rest").transpose(0, 2, 1).reshape(len(state), 3 * count)
    groups = _GROUPS | {"rest": tuple(f"f_rest_{index}" for index in range(3 * count))}
    names = [name for group in groups.values() for name in group]
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(state)}\n{properties}end_header\n"
    rows = np.concatenate([columns[group] for group in _GROUPS], axis=1)
    with replacing(path) as part:
        part.write_bytes(header.encode("ascii") + rows.astype("<f4").tobytes())


def write_sequence(folder: str | Path, states: Sequence[GaussianState], fps: int | float) -> list[Path]:
    """Write `frame_0000.ply`, `frame_0001.ply`, ... and `index.json` (fps; file and time in seconds of each frame).

    Args:
        folder: The folder; created if missing.
        states: The Gaussians of the frames, in order.
        fps: Frames per second, > 0.

    Returns:
        The PLY files.

    Raises:
        ValueError: `fps` is not positive.
    """
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    files = [Path(folder) / f"frame_{frame:04d}.ply" for frame in range(len(states))]
    for file, state in zip(files, states, strict=True):
        write_ply(file, state)
    frames = [{"file": file.name, "seconds": frame / fps} for frame, file in enumerate(files)]
    with replacing(Path(folder) / "index.json") as part:
        part.write_text(json.dumps({"fps": fps, "frames": frames}, indent=1) + "\n")
    return files


def export_ply(source: ExportSource, folder: Path) -> Exported:
    """Write `ply/`: a file for each frame of the reference video, and their index."""
    write_sequence(folder / "ply", source.model.states(source.scene.reference.times), source.fps)
    return Exported([folder / "ply"])
