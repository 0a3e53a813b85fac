"""Who reads what."""

import logging
from pathlib import Path

import pytest
import torch

from kg4d.data.readers import build
from kg4d.data.readers.build import find_reader
from kg4d.data.readers.dnerf import DNerf
from kg4d.data.readers.scene_folder import SceneFolder
from kg4d.data.records import PosedImages, Scene
from kg4d.data.scene import load_scene
from kg4d.errors import InputError
from tests import make
from tests.compare import assert_same
from tests.data.damage import as_dnerf


def test_each_format_has_its_reader(folder: Path, tmp_path: Path) -> None:
    assert isinstance(find_reader(folder), SceneFolder)
    as_dnerf(folder, 30.0)
    assert isinstance(find_reader(folder), DNerf)
    assert find_reader(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ["transforms_ring.json", "keypoints.npz", "flow.npz", "scene.json"])
def test_what_only_a_scene_folder_has_makes_it_one(folder: Path, name: str) -> None:
    as_dnerf(folder, 30.0)
    (folder / name).write_text("{}")
    assert isinstance(find_reader(folder), SceneFolder)


def test_a_scene_without_extras_is_the_same_to_both(folder: Path) -> None:
    for name in ("transforms_ring.json", "keypoints.npz", "flow.npz"):
        (folder / name).unlink()
    assert_same(DNerf().read(folder, 8), SceneFolder().read(folder, 8), atol=0)


class Still:
    """Reads one number, and sees a scene of it: two frames of the same colour, wider than high."""

    format = "still (grey.txt)"

    def recognises(self, path: Path) -> bool:
        return (path / "grey.txt").is_file()

    def read(self, path: Path, size: int | None) -> Scene:
        width = size or 12
        image = torch.full((2, width // 2, width, 4), float((path / "grey.txt").read_text()))
        cameras = make.cameras([0.0, 20.0], size=(width, width // 2))
        frames = torch.arange(2)
        return Scene(path.name, PosedImages(cameras, image, frames / 1.0, frames, torch.zeros(2).long()))


def test_a_reader_more_is_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "READERS", (*build.READERS, Still()))
    (tmp_path / "grey.txt").write_text("0.5")
    with caplog.at_level(logging.INFO, "kg4d"):
        scene = load_scene(tmp_path, 8)
    assert scene.reference.images.shape == (2, 4, 8, 4)
    assert bool((scene.reference.images == 0.5).all())
    assert "no held-out videos" in caplog.text


def test_a_folder_that_no_reader_knows_is_told_the_formats(tmp_path: Path) -> None:
    (tmp_path / "cameras.json").write_text("{}")
    with pytest.raises(InputError, match=r"known formats: .*D-NeRF \(transforms_train\.json.*; scene folder") as caught:
        load_scene(tmp_path)
    assert "\n" not in str(caught.value)
