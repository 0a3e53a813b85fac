"""The tiny scene in memory and on disk."""

import shutil
from pathlib import Path

import pytest

from kg4d.data.records import Scene
from kg4d.data.scene_writer import write_scene
from tests import make


@pytest.fixture
def tiny_scene() -> Scene:
    return make.tiny_scene()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes") / "tiny"
    write_scene(make.tiny_scene(), path)
    return path


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """The tiny scene on disk, free to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "tiny"))
