"""Files and command lines that use old keys still load."""

from pathlib import Path

import pytest

from kg4d.config.load import load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError


def load(*words: str) -> ExperimentConfig:
    return load_config(ExperimentConfig, None, words)


def test_an_old_key_sets_the_new_one() -> None:
    assert load("dynamic.grid_learning_rate=0.5").deformation.hexplane.learning_rate == 0.5
    assert load("arap.neighbours=3").deformation.control_points.arap.neighbours == 3
    assert load("dynamic.steps=7", "dynamic.learning_rate=0.25").deformation.learning_rate == 0.25


def test_a_block_moves_as_a_whole_and_keeps_its_neighbours(tmp_path: Path) -> None:
    text = (
        "handles: {bones: 2.0, loose: 0.3}\ndeformation: {skinned: {sigma: 0.5}}\ndynamic: {share_learning_rate: 0.1}\n"
    )
    (tmp_path / "old.yaml").write_text(text)
    skinned = load_config(ExperimentConfig, tmp_path / "old.yaml").deformation.skinned
    assert (skinned.handles.bones, skinned.handles.loose, skinned.sigma) == (2.0, 0.3, 0.5)
    assert skinned.weight_learning_rate == 0.1


def test_a_later_layer_wins_whatever_the_spelling() -> None:
    words = ("dynamic.learning_rate=1", "deformation.learning_rate=2")
    assert load(*words).deformation.learning_rate == 2
    assert load(*reversed(words)).deformation.learning_rate == 1


def test_both_spellings_in_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text("arap: {weight: 1.0}\ndeformation: {control_points: {arap: {weight: 2.0}}}\n")
    with pytest.raises(InputError, match=r"both.yaml: arap: is now called deformation.control_points.arap"):
        load_config(ExperimentConfig, tmp_path / "both.yaml")


def test_every_old_key_leads_to_one_that_is_there() -> None:
    for new in ExperimentConfig.RENAMED.values():
        value: object = load()
        for name in new.split("."):
            value = getattr(value, name)
