from pathlib import Path

import pytest
import torch

from kg4d.data.images import write_png
from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.data.spans import Span
from kg4d.data.synthetic.room import make_room
from kg4d.errors import InputError
from kg4d.priors.structure import moving_parts, prepare_place
from kg4d.render.build import build_renderer

pytest.importorskip("pycolmap")
ALL = Span(24)


@pytest.fixture(scope="module")
def room() -> Scene:
    return make_room(build_renderer("cpu"), size=240, frames=12)


def frames(scene: Scene, folder: Path) -> Path:
    folder.mkdir()
    for index, image in enumerate(scene.reference.images):
        write_png(folder / f"{index:03d}.png", image[..., :3])
    return folder


@pytest.mark.slow
def test_cameras_are_those_that_filmed_but_for_scale(room: Scene, tmp_path: Path):
    out = tmp_path / "scene"
    found = prepare_place(frames(room, tmp_path / "frames"), out, ALL)
    assert found.registered == found.frames == 12
    assert found.reprojection_px < 1
    scene, truth = load_scene(out), room.reference.cameras.centers
    assert scene.backdrop
    assert scene.points is not None
    ours, theirs = scene.reference.cameras.centers.double(), truth.double()
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    left, values, right = torch.linalg.svd(theirs.mT @ ours)
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.linalg.det(left @ right).sign()
    turned = ours @ (left * sign @ right).mT * ((values * sign).sum() / ours.square().sum())
    path = (truth[1:] - truth[:-1]).norm(dim=-1).sum()
    assert (turned - theirs).norm(dim=-1).mean() < 0.03 * path
    with pytest.raises(InputError, match="exists already"):
        prepare_place(tmp_path / "frames", out, ALL)


def test_what_moves_by_itself_is_masked(room: Scene):
    masks = moving_parts(room.reference.images[:3])
    assert masks.shape == (3, 180, 240)
    assert masks.float().mean() < 0.4
    across = torch.nonzero(masks[1])[:, 1].float()
    assert 60 < across.mean() < 180  # the walker is in the middle


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"), [("grey", "too few matches"), ("turning", "cameras|hardly moves|few matches")]
)
def test_what_cannot_be_solved_says_why(room: Scene, tmp_path: Path, kind: str, words: str):
    folder = tmp_path / "frames"
    folder.mkdir()
    wide = room.reference.images[0, ..., :3]
    for index in range(8):
        image = torch.full_like(wide, 0.5) if kind == "grey" else wide[:, 5 * index : 5 * index + 200]
        write_png(folder / f"{index:03d}.png", image)
    with pytest.raises(InputError, match=words) as caught:
        prepare_place(folder, tmp_path / "scene", ALL)
    assert "film again" in str(caught.value)
    assert not (tmp_path / "scene").exists()


def test_a_picture_is_no_video(tmp_path: Path):
    write_png(tmp_path / "one.png", torch.rand(16, 16, 3))
    with pytest.raises(InputError, match="needs a video of a moving camera"):
        prepare_place(tmp_path / "one.png", tmp_path / "scene", ALL)
