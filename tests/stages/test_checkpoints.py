"""Checkpoints of earlier versions are read under today's names."""

from pathlib import Path

import torch
from torch import Tensor

from kg4d.stages.checkpoints import read_checkpoint


def saved(path: Path, stage: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.save({"kg4d": {"stage": stage}, "state_dict": weights}, path)
    found: dict[str, Tensor] = read_checkpoint(path)["state_dict"]
    return found


def test_gaussians_and_deformation_become_parts_of_a_representation(tmp_path: Path) -> None:
    logits = torch.rand(5, 2)
    old = {
        "model.means": torch.rand(5, 3),
        "model.keypoint_logits": logits,
        "deformation.mlp.first.bias": torch.ones(4),
    }
    found = saved(tmp_path / "dynamic.ckpt", "dynamic", old)
    assert set(found) == {
        "representation.gaussians.means",
        "representation.gaussians.keypoint_logits",
        "representation.gaussians.skinning_logits",
        "representation.deformation.mlp.first.bias",
    }
    assert found["representation.gaussians.skinning_logits"].shape == (5, 0)


def test_skinning_logits_were_kept_as_keypoint_logits(tmp_path: Path) -> None:
    logits = torch.rand(5, 2)
    old = {"model.keypoint_logits": logits, "deformation.shifts": torch.rand(3, 2, 3)}
    found = saved(tmp_path / "refine.ckpt", "refine", old)
    assert torch.equal(found["representation.gaussians.skinning_logits"], logits)
    assert torch.equal(found["representation.deformation.translations"], old["deformation.shifts"])


def test_a_static_stage_has_no_skinning_yet(tmp_path: Path) -> None:
    found = saved(tmp_path / "static.ckpt", "static", {"model.keypoint_logits": torch.rand(5, 2)})
    assert found["model.skinning_logits"].shape == (5, 0)


def test_todays_names_stay(tmp_path: Path) -> None:
    weights = {
        "representation.gaussians.keypoint_logits": torch.rand(5, 2),
        "representation.gaussians.skinning_logits": torch.rand(5, 3),
        "representation.deformation.translations": torch.rand(3, 3, 3),
    }
    found = saved(tmp_path / "dynamic.ckpt", "dynamic", weights)
    assert set(found) == set(weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())
