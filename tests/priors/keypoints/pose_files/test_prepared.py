"""Files of pose estimators through the command."""

import json
from pathlib import Path

import pytest
import torch

from kg4d.data.scene import load_scene
from tests.priors.clips import save_video
from tests.priors.commands import prepared
from tests.priors.keypoints.pose_files.writing import WRITERS, openpose_frame


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Of 4 frames of 96 x 96 px; a disc in the middle moves 2 px a frame."""
    return save_video(tmp_path / "disc.mp4")


def following(frames: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Individual 1 is the disc, individual 0 sits in a corner."""
    on_disc = torch.tensor([[40.0, 48.0], [48.0, 48.0], [58.0, 48.0]])
    step = torch.arange(frames)[:, None, None] * torch.tensor([2.0, 0.0])
    corner = torch.tensor([[3.0, 3.0], [6.0, 3.0], [9.0, 3.0]]).expand(frames, -1, -1)
    uv = torch.stack([corner, on_disc + step], dim=1)
    weights = torch.full((frames, 2, 3), 0.9)
    weights[2, 1, 1] = 0
    return uv, weights


@pytest.mark.parametrize("name", ["deeplabcut csv", "deeplabcut table", "sleap"])
def test_tracks_become_keypoints_of_the_scene(
    name: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uv, weights = following()
    file, write = WRITERS[name]
    write(tmp_path / file, uv, weights)
    assert prepared(video, tmp_path / "scene", f"keypoints.path={tmp_path / file}") == 0
    keypoints = load_scene(tmp_path / "scene").keypoints
    assert keypoints is not None
    assert keypoints.names == ("nose", "left ear", "tail")
    assert keypoints.parents == (-1, 0, 1)  # those of the file, else what spans the object
    record = json.loads((tmp_path / "scene/scene.json").read_text())
    assert record["priors"]["tracking"]["kind"] == "given"
    assert any("2 individuals: taken is 'mouse1'" in note for note in record["notes"])
    assert "taken is 'mouse1' the one whose keypoints lie on the object" in capsys.readouterr().out
    frame = record["frame"]
    expected = (uv[:, 1] + 0.5 - torch.tensor([frame["left"], frame["top"]])) * frame["size"] / frame["side"]
    there = weights[:, 1] > 0
    assert torch.allclose(keypoints.weights, weights[:, 1])
    assert torch.allclose(keypoints.uv[there], expected[there], atol=1e-3)


def test_a_file_of_one_frame_marks_the_first(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person = torch.zeros(25, 3)
    person[[0, 1, 8]] = torch.tensor([[40.0, 47.0, 0.8], [48.0, 47.0, 0.7], [58.0, 47.0, 0.9]])
    (tmp_path / "0_keypoints.json").write_text(openpose_frame([person]))
    assert prepared(video, tmp_path / "scene", f"keypoints.path={tmp_path / '0_keypoints.json'}") == 0
    keypoints = load_scene(tmp_path / "scene").keypoints
    assert keypoints is not None
    assert keypoints.names == ("nose", "neck", "mid_hip")
    assert keypoints.parents == (1, -1, 1)
    assert "the first frame shows no right_shoulder" in capsys.readouterr().out
    moved = keypoints.uv[-1, 1] - keypoints.uv[0, 1]
    assert moved[0] > 1  # it was followed


def test_another_video_is_refused_in_one_line(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["deeplabcut csv"][1](tmp_path / "k.csv", *following(7))
    assert prepared(video, tmp_path / "scene", f"keypoints.path={tmp_path / 'k.csv'}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "k.csv" in line
    assert "has 7 frames, 0 to 6; the input has 4" in line


def test_a_frame_with_left_and_right_exchanged_is_put_right(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    person = torch.zeros(25, 3)
    seen = [1, 2, 5, 9, 12]  # neck, right and left shoulder, right and left hip
    person[seen] = torch.tensor([[48.0, 38, 1], [40, 40, 1], [56, 40, 1], [42, 58, 1], [54, 58, 1]])
    exchanged = person.clone()
    exchanged[[2, 5, 9, 12]] = person[[5, 2, 12, 9]]
    (tmp_path / "poses").mkdir()
    for t, pose in enumerate((person, person, exchanged, person)):
        moved = pose + torch.tensor([2.0 * t, 0.0, 0.0]) * (pose[:, 2:] > 0)
        (tmp_path / f"poses/{t}_keypoints.json").write_text(openpose_frame([moved]))
    found = {}
    for unflip in ("true", "false"):
        words = [f"keypoints.path={tmp_path / 'poses'}", f"keypoints.unflip={unflip}"]
        assert prepared(video, tmp_path / unflip, *words) == 0
        scene = load_scene(tmp_path / unflip).keypoints
        assert scene is not None
        left, right = scene.names.index("left_shoulder"), scene.names.index("right_shoulder")
        found[unflip] = (scene.uv[:, left, 0] > scene.uv[:, right, 0]).tolist()
        told = "left and right are exchanged in frames 2 of the file" in capsys.readouterr().out
        assert told == (unflip == "true")
    assert found == {"true": [True] * 4, "false": [True, True, False, True]}
