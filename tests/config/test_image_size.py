"""The size of the images of a fit: a longer side, or width and height."""

from pathlib import Path

import pytest

from kg4d.config.load import expand, load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.data.sizes import Size
from kg4d.errors import InputError
from kg4d.pipeline import fit
from kg4d.runs.read_back import load_run
from tests.tiny_runs import tiny

FILE = Path(__file__).parents[2] / "experiments/flag4d.yaml"


def sized(*words: str) -> ExperimentConfig:
    return expand(ExperimentConfig, FILE, words)[0].config


def test_one_number_is_the_longer_side_and_two_are_width_and_height() -> None:
    assert sized("image_size=96").size == 96
    assert sized("image_size=1e2").size == 100
    assert sized("image_size=[96, 72]").size == Size(96, 72)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[96, 72, 3]", "has 3 numbers"),
        ("[96]", "has 1 numbers"),
        ("[96, tall]", "'tall' is not a whole number"),
        ("9.5", "9.5 is not a whole number"),
        ("wide", "'wide' is not a whole number"),
        ("null", "None is not a whole number"),
        ("[8, 96]", "must be at least 16, not 8"),
        ("[96, 9000]", "must be at most 8192, not 9000"),
        ("[-96, 72]", "must be at least 16"),
    ],
)
def test_anything_else_is_refused(value: str, words: str) -> None:
    with pytest.raises(InputError, match="image_size") as caught:
        sized(f"image_size={value}")
    assert words in str(caught.value)


def test_a_fit_of_a_pair_is_read_back_at_that_size(tmp_path: Path) -> None:
    words = ("scene=synthetic:room", "image_size=[40, 24]", "gaussians.count=200", "static.steps=1", "dynamic.steps=2")
    config = tiny(tmp_path, *words, "export.formats=[mp4]", file="flag4d")
    run = load_run(fit(config))
    assert load_config(ExperimentConfig, run.folder.config).size == Size(40, 24)
    assert run.scene.reference.images.shape[1:3] == (24, 40)
    assert (run.folder.export / "video/test_0_motion.mp4").is_file()


def test_made_characters_are_square(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give one number"):
        fit(tiny(tmp_path, "scene=synthetic:walker", "image_size=[40, 24]"))
