"""Motion files: what other programs write and what this one does, read back; what is wrong is named."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kg4d.errors import InputError
from kg4d.formats.bvh import write_bvh
from kg4d.formats.motion_files import Motion, read_bvh, read_motion, read_tracks
from kg4d.formats.settings import MotionConfig
from kg4d.formats.tracks import Tracks
from kg4d.geometry.rotations import quat_rotate

BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Spine
  {
    OFFSET 0 2 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 1 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
1 2 3 0 0 0 0 0 0
1 2 3 90 0 0 0 90 0
"""


def test_a_file_of_another_program_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.bvh").write_text(BVH)
    motion = read_bvh(tmp_path / "a.bvh")
    assert motion.names == ("Hips", "Spine")
    assert motion.fps == pytest.approx(20)
    expected = [[[1, 2, 3], [1, 4, 3]], [[1, 2, 3], [-1, 2, 3]]]  # the second frame bends over to -x
    np.testing.assert_allclose(motion.positions, expected, atol=1e-12)
    assert motion.quats is not None
    turned = quat_rotate(motion.quats[1], torch.tensor([1.0, 0, 0], dtype=torch.float64).expand(2, 3))
    np.testing.assert_allclose(turned, [[0, 1, 0], [0, 0, -1]], atol=1e-12)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(3)
    angles = torch.rand(6, generator=g) * 3
    arm = torch.stack([torch.cos(angles), torch.sin(angles), 0.2 * angles], dim=-1)
    arm = arm / arm.norm(dim=-1, keepdim=True)
    root = torch.rand(6, 3, generator=g)
    positions = torch.stack([root, root + torch.tensor([0, 1.0, 0]), root + arm, root + 2 * arm], dim=1)
    write_bvh(tmp_path / "a.bvh", Tracks(("root", "Head", "left elbow", "left wrist"), (-1, 0, 0, 2), 8, positions))
    motion = read_motion(MotionConfig(str(tmp_path / "a.bvh"), every=2)).of(
        ("ROOT", "head", "left_elbow", "LeftWrist"), "a.bvh"
    )
    assert motion.fps == pytest.approx(4)
    torch.testing.assert_close(motion.positions.float(), positions[::2], atol=1e-5, rtol=0)
    assert motion.quats is not None
    carried = quat_rotate(motion.quats[:, 2], (positions[0, 3] - positions[0, 2]).double().expand(3, 3))
    torch.testing.assert_close(carried.float(), (positions[:, 3] - positions[:, 2])[::2], atol=1e-5, rtol=0)


def test_names_that_do_not_match_are_listed() -> None:
    motion = Motion(("Hips", "LeftUpLeg", "Head"), 8.0, torch.zeros(2, 3, 3))
    with pytest.raises(InputError, match=r"no joint for the keypoints left_hip; its other joints are LeftUpLeg"):
        motion.of(("hips", "left_hip"), "dance.bvh")
    mapped = motion.of(("hips", "left_hip"), "dance.bvh", {"Left Hip": "leftupleg"})
    assert mapped.positions.shape == (2, 2, 3)
    with pytest.raises(InputError, match="several joints called hand"):
        Motion(("hand", "Hand"), 8.0, torch.zeros(2, 2, 3)).of(("hand",), "dance.bvh")


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("MOTION", "NOTHING"),
        ("Frames: 2", "Frames: 3"),
        ("Frames: 2", "Frames: 99999999999"),
        ("0.05", "0"),
        ("90", "nan"),
        ("90", "ninety"),
        ("Zrotation", "Wrotation"),
        ("HIERARCHY", "HIERARCHY {{{"),
        ("OFFSET 0 2 0", "OFFSET 0 2"),
        (r"\}\nMOTION", "MOTION"),
        (r"(?s).*", ""),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, pattern: str, replacement: str) -> None:
    (tmp_path / "a.bvh").write_text(re.sub(pattern, replacement, BVH, count=1))
    with pytest.raises(InputError, match=r"a\.bvh: is no BVH file"):
        read_bvh(tmp_path / "a.bvh")


@pytest.mark.parametrize(
    "change", [{"names": ["a"]}, {"fps": 0}, {"xyz": [[[0, 0]]]}, {"xyz": None}, {"xyz": [[[0, 0, float("nan")]] * 2]}]
)
def test_damaged_tracks_are_named(tmp_path: Path, change: dict[str, object]) -> None:
    table = {"names": ["a", "b"], "fps": 8, "xyz": [[[0, 0, 0], [0, 1, 0]]] * 2}
    (tmp_path / "a.json").write_text(json.dumps(table))
    assert read_tracks(tmp_path / "a.json").positions.shape == (2, 2, 3)
    (tmp_path / "a.json").write_text(json.dumps({**table, **change}))
    with pytest.raises(InputError, match="is no motion of keypoints"):
        read_tracks(tmp_path / "a.json")


def test_a_motion_takes_two_frames_and_a_file_that_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.bvh").write_text(BVH)
    with pytest.raises(InputError, match="a single frame"):
        read_motion(MotionConfig(str(tmp_path / "a.bvh"), every=2))
    for name, what in {"b.bvh": "no such file", "c.fbx": "no motion that can be read"}.items():
        with pytest.raises(InputError, match=what):
            read_motion(MotionConfig(str(tmp_path / name)))
