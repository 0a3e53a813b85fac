"""Checkpoints of stages: whose they are, whether they are whole; read without executing code, old ones too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import kg4d
from kg4d.errors import InputError
from kg4d.utils.files import replacing, tree_hash

SCHEMA = 1
"""Of the entry `kg4d`; 0 had no hashes."""

_AGAIN = "remove it; kg4d.fit --resume then goes on from what is left"

# Beginnings of names in a state dict: before, now. Dynamic and refine stages held Gaussians and deformation apart.
_RENAMED = {
    "model.": "representation.gaussians.",
    "deformation.shifts": "representation.deformation.translations",
    "deformation.": "representation.deformation.",
}


def seal(checkpoint: dict[str, Any], run: str) -> None:
    """Note in a checkpoint whose it is, and a hash of all of it, by which `read_checkpoint` knows that it is whole.

    Args:
        checkpoint: With its entry `kg4d`, which names the stage.
        run: Hash of the configuration of the run.
    """
    checkpoint["kg4d"] |= {"schema": SCHEMA, "version": kg4d.__version__, "run": run}
    checkpoint["kg4d"]["sha256"] = tree_hash(checkpoint)


def reseal(path: Path, run: str) -> None:
    """Let a checkpoint belong to another run: one whose fit comes to the same up to there.

    Args:
        path: The file, replaced.
        run: Hash of the configuration of that run.

    Raises:
        InputError: It is no checkpoint of this package, or is damaged.
    """
    read_checkpoint(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint["kg4d"].pop("sha256", None)
    seal(checkpoint, run)
    with replacing(path) as part:
        torch.save(checkpoint, part)


def read_checkpoint(path: Path, device: torch.device | str = "cpu", run: str = "") -> dict[str, Any]:
    """The checkpoint of a stage, in today's names.

    Args:
        path: The file.
        device: Where its tensors go.
        run: Hash of the configuration that it must belong to; any when empty. Checkpoints of earlier versions have
            none, nor a hash of their content.

    Raises:
        InputError: It is no checkpoint of this package, is damaged, of a later version, or of another run.
    """
    if not path.is_file():
        raise InputError(path, "is no regular file", _AGAIN)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        about = checkpoint["kg4d"]
        stage, weights, schema = about["stage"], checkpoint["state_dict"], about.get("schema", 0)
        sealed = about.pop("sha256", None)
        whole = sealed is None or sealed == tree_hash(checkpoint)
        odd = [name for name, value in weights.items() if not _is_sound(value)]
        if odd:
            raise ValueError(odd[0])
    except Exception as error:  # whatever the reader makes of bytes that are no checkpoint
        raise InputError(path, f"is no checkpoint, or is damaged ({type(error).__name__})", _AGAIN) from error
    if not isinstance(schema, int) or schema > SCHEMA:
        raise InputError(path, f"was written by kg4d {about.get('version')}, a later version", "read it with that one")
    if not whole or (schema > 0 and sealed is None):
        raise InputError(path, "is damaged: its content is not what was written", _AGAIN)
    if run and about.get("run", run) != run:
        raise InputError(path, "belongs to a run with another configuration", _AGAIN)
    if stage == "static":
        checkpoint["state_dict"] = _with_skinning(weights, "model.")
    else:
        renamed = {_renamed(name): value for name, value in weights.items()}
        checkpoint["state_dict"] = _with_skinning(renamed, "representation.gaussians.")
    return {name: on_device(value, device) for name, value in checkpoint.items()}


def _is_sound(value: object) -> bool:
    """Whether a weight is a tensor of finite real numbers."""
    return isinstance(value, Tensor) and not value.is_complex() and bool(value.isfinite().all())


def on_device(tree: Any, device: torch.device | str) -> Any:
    """The same nested dicts and lists, with their tensors on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: on_device(value, device) for key, value in tree.items()}
    return [on_device(value, device) for value in tree] if isinstance(tree, list) else tree


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
