"""Gaussians as `.splat`, the format of antimatter15's viewer, which most viewers on the web read: 32 bytes a Gaussian.

Three float32 of the centre, three of the scales, RGB and opacity in 8 bits each, and the unit quaternion (w, x, y, z)
as 128 + 128 q in 8 bits each; no header. World axes are not changed. Harmonics and keypoint logits are not stored.
"""

from pathlib import Path

import numpy as np
import torch

from kg4d.formats.base import Exported, ExportSource
from kg4d.gaussians.state import GaussianState
from kg4d.utils.files import replacing

_ROW = np.dtype([("mean", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def write_splat(path: str | Path, state: GaussianState) -> None:
    """Write one file; it appears complete or not at all.

    The largest and most opaque Gaussians come first, by volume times opacity: viewers draw while they load.

    Args:
        path: The file; parent folders are created.
        state: The Gaussians. Colours outside [0, 1] are clipped.
    """
    state = state.detach().to("cpu")
    quats, scales = state.ellipsoids
    order = torch.argsort(scales.double().prod(-1) * state.opacities, descending=True, stable=True)
    rows = np.empty(len(state), _ROW)
    rgba = torch.cat([state.colors, state.opacities[:, None]], dim=-1)
    rows["mean"], rows["scales"] = state.means[order].numpy(), scales[order].numpy()
    rows["rgba"] = (rgba[order].clamp(0, 1) * 255).round().byte().numpy()
    unit = torch.nn.functional.normalize(quats[order], dim=-1)
    rows["quat"] = (128 + 128 * unit).round().clamp(0, 255).byte().numpy()
    with replacing(path) as part:
        part.write_bytes(rows.tobytes())


def export_splat(source: ExportSource, folder: Path) -> Exported:
    """Write `splat/`: a file for each frame of the reference video."""
    for frame, state in enumerate(source.model.states(source.scene.reference.times)):
        write_splat(folder / "splat" / f"frame_{frame:04d}.splat", state)
    return Exported([folder / "splat"])
