"""Gaussians as PLY, in the layout of 3D Gaussian splatting that gsplat, SuperSplat and others read.

Values are stored before activation: log-scales, opacity logits, and colours as coefficients of the harmonic of
degree 0. World axes are stored as they are. Keypoint logits have no column in this layout and are not stored.
"""

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch

from kg4d.errors import InputError
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.harmonics import rgb_to_sh0, sh0_to_rgb
from kg4d.utils.files import replacing

_GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),  # zero: the layout carries them from the point clouds it came from
    "sh0": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity_logits": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
_NUMPY_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1"}
_MARGIN = 1e-6  # opacities are kept this far from 0 and 1, where the logit is infinite
_REMEDY = "give a binary little endian PLY file of Gaussians"


def pre_activation(state: GaussianState) -> dict[str, np.ndarray]:
    """What Gaussian files store: float32 `means`, `sh0`, `opacity_logits` (N, 1), `log_scales` and unit `quats`."""
    columns = {
        "means": state.means,
        "sh0": rgb_to_sh0(state.colors),
        "opacity_logits": torch.logit(state.opacities, eps=_MARGIN)[:, None],
        "log_scales": state.scales.log(),
        "quats": torch.nn.functional.normalize(state.quats, dim=-1),
    }
    return {name: column.detach().float().cpu().numpy() for name, column in columns.items()}


def write_ply(path: str | Path, state: GaussianState) -> None:
    """Write one PLY (binary little endian, float32); the file appears complete or not at all.

    Args:
        path: The file; folders above it are made.
        state: What to write. Opacities within 1e-6 of 0 or 1 are moved to that distance.
    """
    columns = pre_activation(state)
    columns["normals"] = np.zeros_like(columns["means"])
    names = [name for group in _GROUPS.values() for name in group]
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(state)}\n{properties}end_header\n"
    rows = np.concatenate([columns[group] for group in _GROUPS], axis=1)
    with replacing(path) as part:
        part.write_bytes(header.encode("ascii") + rows.astype("<f4").tobytes())


def read_ply(path: str | Path) -> GaussianState:
    """Read a PLY of Gaussians, from here or from another program, in any order of the columns.

    Columns that a state cannot hold (normals, `f_rest_*` of view-dependent colour) are left out; J is 0.

    Args:
        path: Binary little endian PLY.

    Returns:
        The Gaussians, activated, float32 on the CPU.

    Raises:
        InputError: The file is missing, cut short, in another encoding, or has not the columns of Gaussians.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file", "check the path")
    header, end, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii", errors="replace").split("\n")
    if lines[0] != "ply" or "format binary_little_endian 1.0" not in lines or not end:
        raise InputError(path, "is not a binary little endian PLY file", _REMEDY)
    count, row = _vertices(path, lines)
    if len(body) < count * row.itemsize:
        raise InputError(path, f"ends before its {count} Gaussians do", "write it again")
    table = np.frombuffer(body, dtype=row, count=count)

    def column(group: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([table[name] for name in _GROUPS[group]], axis=-1).astype(np.float32))

    return GaussianState(
        means=column("means"),
        quats=column("quats"),
        scales=column("log_scales").exp(),
        opacities=column("opacity_logits")[:, 0].sigmoid(),
        colors=sh0_to_rgb(column("sh0")),
        keypoint_logits=torch.zeros(count, 0),
    )


def _vertices(path: Path, lines: list[str]) -> tuple[int, np.dtype[np.void]]:
    """Number of rows and the layout of one, from the header's vertex element, which must come first."""
    elements = [index for index, line in enumerate(lines) if line.startswith("element ")]
    if not elements or not lines[elements[0]].startswith("element vertex "):
        raise InputError(path, "does not begin with vertices", _REMEDY)
    first = elements[0]
    properties = takewhile(lambda words: words[:1] == ["property"], (line.split() for line in lines[first + 1 :]))
    try:
        count = int(lines[first].split()[2])
        row = np.dtype([(name, _NUMPY_TYPES[kind]) for _, kind, name in properties])
    except (KeyError, ValueError) as error:
        raise InputError(path, f"has a vertex property that is not understood ({error})", _REMEDY) from error
    missing = {name for group, names in _GROUPS.items() if group != "normals" for name in names} - set(row.names or ())
    if missing:
        raise InputError(path, f"has no column {', '.join(sorted(missing))}", _REMEDY)
    return count, row


def write_sequence(folder: str | Path, states: Sequence[GaussianState], fps: int | float) -> list[Path]:
    """Write `frame_0000.ply`, `frame_0001.ply`, ... and `index.json` (fps; file and time in seconds of each frame).

    Args:
        folder: Where to; made if missing.
        states: The frames in order.
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
