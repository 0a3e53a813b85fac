"""Checkpoints of stages: read without executing code, those of earlier versions too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Beginnings of names in a state dict: before, now. Dynamic and refine stages held Gaussians and deformation apart.
_RENAMED = {
    "model.": "representation.gaussians.",
    "deformation.shifts": "representation.deformation.translations",
    "deformation.": "representation.deformation.",
}


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The checkpoint of a stage, in today's names."""
    checkpoint: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    weights = checkpoint["state_dict"]
    if checkpoint["kg4d"]["stage"] == "static":
        checkpoint["state_dict"] = _with_skinning(weights, "model.")
    else:
        renamed = {_renamed(name): value for name, value in weights.items()}
        checkpoint["state_dict"] = _with_skinning(renamed, "representation.gaussians.")
    return checkpoint


def _renamed(name: str) -> str:
    for before, now in _RENAMED.items():
        if name.startswith(before):
            return now + name.removeprefix(before)
    return name


def _with_skinning(weights: Mapping[str, Tensor], gaussians: str) -> dict[str, Tensor]:
    """Skinning logits used to be kept in the place of the keypoint logits, once a skinned motion had started."""
    name = f"{gaussians}skinning_logits"
    logits = weights[f"{gaussians}keypoint_logits"]
    if name in weights:
        return dict(weights)
    skinned = "representation.deformation.translations" in weights
    return {**weights, name: logits.clone() if skinned else logits.new_zeros(len(logits), 0)}
