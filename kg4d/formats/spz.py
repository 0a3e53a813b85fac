"""Gaussians as SPZ, Niantic's compact format: quantised to about 16 bytes per Gaussian, 3 more for each harmonic."""

from pathlib import Path

import numpy as np

from kg4d.formats.base import Exported, ExportSource
from kg4d.formats.ply import pre_activation
from kg4d.gaussians.state import GaussianState
from kg4d.utils.files import replacing

_FINEST_BITS = 16  # fractional bits of a position: steps of 1.5e-5 world units, within +-128 units


def write_spz(path: str | Path, state: GaussianState) -> None:
    """Write one SPZ file (version 3); it appears complete or not at all.

    Positions have 24 bits, log-scales steps of 1/16, opacities and colours 8 bits: expect errors of up to 3 % in the
    scales and 0.5 / 255 in the opacities. Coefficients of harmonics have 8 bits: steps of 1/128, within [-1, 1). World
    axes are not changed; keypoint logits are not stored.

    Args:
        path: The file; parent folders are created.
        state: The Gaussians.

    Raises:
        ImportError: The package gsply is not installed.
    """
    try:
        import gsply
    except ImportError as error:
        raise ImportError('writing SPZ needs gsply: pip install "kg4d[spz]"') from error
    columns = pre_activation(state)
    extent = float(np.abs(columns["means"]).max(initial=1e-6))
    whole_bits = max(0, int(np.floor(np.log2(extent))) + 1)  # the 24 bits hold a sign, these, and the fraction
    data = gsply.GSData(
        means=columns["means"],
        scales=columns["log_scales"],
        quats=columns["quats"],
        opacities=columns["opacity_logits"][:, 0],
        sh0=columns["sh0"],
        shN=columns["sh_rest"],
    )
    with replacing(path) as part:
        gsply.write_spz(part, data, fractional_bits=min(_FINEST_BITS, 23 - whole_bits), version=3)


def export_spz(source: ExportSource, folder: Path) -> Exported:
    """Write `spz/`: a file for each frame of the reference video."""
    for frame, state in enumerate(source.model.states(source.scene.reference.times)):
        write_spz(folder / "spz" / f"frame_{frame:04d}.spz", state)
    return Exported([folder / "spz"])
