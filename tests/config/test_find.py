from pathlib import Path

import pytest

from kg4d.config.find import asked_for, find_experiment
from kg4d.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("quickstart", "experiments/quickstart.yaml"),
        ("recommended", "experiments/recommended.yaml"),
        ("4dgaussians", "configs/4dgaussians.yaml"),
    ],
)
def test_a_name(word: str, file: str) -> None:
    assert find_experiment(word) == (ROOT / file, None)


@pytest.mark.parametrize(
    ("name", "kind"), [("dog.MP4", "video_to_4d"), ("dog.png", "image_to_4d"), ("frames", "video_to_4d")]
)
def test_a_clip(tmp_path: Path, name: str, kind: str) -> None:
    clip = tmp_path / name
    if clip.suffix:
        clip.touch()
    else:
        clip.mkdir()
    assert find_experiment(str(clip)) == (ROOT / f"experiments/{kind}.yaml", str(clip))


def test_a_file_is_taken_as_it_is() -> None:
    assert find_experiment("mine.yaml") == (Path("mine.yaml"), None)


@pytest.mark.parametrize(("word", "says"), [("quikstart", "did you mean `quickstart`"), ("no/dog.mp4", "no such file")])
def test_what_is_not_there(word: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_experiment(word)


def test_the_first_word_stands_for_the_file(tmp_path: Path) -> None:
    clip = tmp_path / "dog.mp4"
    clip.touch()
    assert asked_for("mine.yaml", ["seed=1"]) == ("mine.yaml", ["seed=1"])
    video = ROOT / "experiments/video_to_4d.yaml"
    assert asked_for(None, [str(clip), "seed=1"]) == (video, [f"scene={clip}", "seed=1"])
    for words in ([], ["seed=1"]):
        with pytest.raises(InputError, match="says not what to fit"):
            asked_for(None, words)
