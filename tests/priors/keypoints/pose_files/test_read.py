"""Every format gives the same poses, in our pixels; what is wrong in a file is named."""

import json
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from kg4d.errors import InputError
from kg4d.keypoints.sides import other_sides
from kg4d.priors.keypoints.marked import SupportKeypoints
from kg4d.priors.keypoints.pose_files.poses import Poses
from kg4d.priors.keypoints.pose_files.read import read_keypoint_file
from tests.priors.keypoints.pose_files.writing import NAMES, WRITERS, openpose_frame, write_sleap


def read(path: Path) -> Poses:
    found = read_keypoint_file(path, 96, 64)
    assert isinstance(found, Poses)
    return found


def drawn(frames: int = 3, individuals: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints with confidences; one is missing."""
    generator = torch.Generator().manual_seed(0)
    uv = torch.rand(frames, individuals, 3, 2, generator=generator) * 60
    weights = 0.1 + 0.85 * torch.rand(frames, individuals, 3, generator=generator)
    weights[1, 0, 2] = 0
    return uv, weights


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_poses(name: str, tmp_path: Path) -> None:
    uv, weights = drawn()
    file, write = WRITERS[name]
    found = read(write(tmp_path / file, uv, weights))
    assert found.names == NAMES
    assert torch.allclose(found.weights, weights, atol=1e-5)
    assert torch.allclose(found.uv, (uv + 0.5) * (weights > 0)[..., None], atol=1e-4)
    assert found.individuals is not None
    assert len(found.individuals) == 2
    expected = {"coco": (-1, 0, 0), "sleap": (-1, 0, 1), "sleap standard": (-1, 0, 1)}.get(name)
    assert found.parents == expected
    assert (found.sizes == ((96, 64),) * 3) if name == "coco" else (found.sizes is None)


def test_labels_of_coco_are_1_where_seen_and_half_where_hidden(tmp_path: Path) -> None:
    rows = [
        {"image_id": 4, "category_id": 1, "keypoints": [10, 20, 2, 30, 40, 1, 0, 0, 0]},
        {"image_id": 40, "category_id": 1, "keypoints": [11, 21, 1, 0, 0, 0, 5, 6, 2]},
    ]
    table = {"images": [{"id": 40}, {"id": 4}], "annotations": rows, "categories": []}
    (tmp_path / "k.json").write_text(json.dumps(table))
    found = read(tmp_path / "k.json")
    assert found.weights[:, 0].tolist() == [[1, 0.5, 0], [0.5, 0, 1]]
    assert found.uv[0, 0, 0].tolist() == [10.5, 20.5]
    assert found.labels == ("4", "40")
    assert found.individuals is None


def test_results_of_a_detector_are_coco_too(tmp_path: Path) -> None:
    rows = [{"image_id": f"{t}.png", "score": 1.0, "keypoints": [8, 9, 0.25] * 17} for t in (10, 9)]
    (tmp_path / "k.json").write_text(json.dumps(rows))
    found = read(tmp_path / "k.json")
    assert found.labels == ("9.png", "10.png")
    assert found.names[5] == "left_shoulder"
    assert found.parents is not None
    assert (found.weights == 0.25).all()


@pytest.mark.parametrize("count", [15, 18, 25])
def test_bodies_of_openpose_are_trees_with_sides(count: int, tmp_path: Path) -> None:
    person = torch.tensor([100.0, 120.0, 0.8]).repeat(count, 1)
    person[1] = 0  # not found
    (tmp_path / "clip_000000000000_keypoints.json").write_text(openpose_frame([person]))
    found = read(tmp_path / "clip_000000000000_keypoints.json")
    assert found.weights[0, 0, 1] == 0
    assert found.weights[0, 0, 0] == pytest.approx(0.8)
    assert found.uv[0, 0, 0].tolist() == [100.5, 120.5]
    assert found.parents is not None
    assert found.parents.count(-1) == 1
    assert len(set(found.names)) == count
    sides = other_sides(found.names)
    assert all(
        (sides[joint] < 0) == ("left" not in name and "right" not in name) for joint, name in enumerate(found.names)
    )
    assert all(
        found.names[found.parents[sides[j]]].split("_")[-1] == found.names[found.parents[j]].split("_")[-1]
        for j in range(count)
        if sides[j] >= 0
    )


def test_a_folder_of_openpose_is_a_video(tmp_path: Path) -> None:
    for t, people in ((10, 1), (2, 0), (9, 2)):
        persons = [torch.full((25, 3), 10.0 * t + person) for person in range(people)]
        (tmp_path / f"clip_{t}_keypoints.json").write_text(openpose_frame(persons))
    (tmp_path / "notes.txt").write_text("not ours")
    found = read(tmp_path)
    assert found.labels == ("clip_2", "clip_9", "clip_10")
    assert found.weights.amax(-1).tolist() == [[0, 0], [1, 1], [1, 0]]
    assert found.uv[2, 0, 0].tolist() == [100.5, 100.5]


def test_labels_of_deeplabcut_need_no_likelihood(tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text(
        "scorer,,,me,me,me,me\nbodyparts,,,snout,snout,tail,tail\ncoords,,,x,y,x,y\n"
        "labeled-data,clip,img010.png,3,4,,\nlabeled-data,clip,img002.png,1,2,5,nan\n"
    )
    found = read(tmp_path / "k.csv")
    assert found.names == ("snout", "tail")
    assert found.labels == ("img002.png", "img010.png")
    assert found.weights[:, 0].tolist() == [[1, 0], [1, 0]]
    assert found.uv[:, 0, 0].tolist() == [[1.5, 2.5], [3.5, 4.5]]


def test_points_that_a_person_set_in_sleap_have_no_score(tmp_path: Path) -> None:
    uv, weights = drawn()
    write_sleap(tmp_path / "k.h5", uv, weights)
    with h5py.File(tmp_path / "k.h5", "a") as file:
        scores = file["point_scores"][:]
        scores[0, 0, 0] = np.nan
        file["point_scores"][...] = scores
    assert read(tmp_path / "k.h5").weights[0, 0, 0] == 1


def test_our_own_tracks_are_in_our_pixels(tmp_path: Path) -> None:
    table = {"names": ["a", "b"], "parents": [None, "a"], "uv": [[[1, 2], [3, 4]], [None, [5, 6]]]}
    (tmp_path / "k.json").write_text(json.dumps(table))
    found = read(tmp_path / "k.json")
    assert found.parents == (-1, 0)
    assert found.uv[:, 0].tolist() == [[[1, 2], [3, 4]], [[0, 0], [5, 6]]]
    assert found.weights[:, 0].tolist() == [[1, 1], [0, 1]]
    (tmp_path / "k.json").write_text(json.dumps(table | {"weights": [[0.5, 0], [1, 0.25]]}))
    assert read(tmp_path / "k.json").weights[:, 0].tolist() == [[0.5, 0], [0, 0.25]]


def test_our_own_first_frame_stays_a_support(tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps({"names": ["a", "b"], "uv": [[1, 2], [3, 4]]}))
    assert isinstance(read_keypoint_file(tmp_path / "k.json", 96, 64), SupportKeypoints)


COCO = {"image_id": 1, "category_id": 1, "keypoints": [1, 2, 2]}
TRACKS = {"names": ["a"], "uv": [[[1, 2]], [[3, 4]]]}
WRONG = {
    "empty": ("", "not valid JSON"),
    "another JSON": ("{}", "in no format that is known here"),
    "a list": ("[1, 2]", "in no format that is known here"),
    "coco without triples": (json.dumps({"annotations": [COCO | {"keypoints": [1, 2]}]}), "no list of x, y, v"),
    "coco with a word": (json.dumps({"annotations": [COCO | {"keypoints": [1, "2", 2]}]}), "no list of x, y, v"),
    "coco with v below 0": (json.dumps({"annotations": [COCO | {"keypoints": [1, 2, -1]}]}), "v is negative"),
    "coco of two lengths": (json.dumps([COCO, COCO | {"keypoints": [1, 2, 2] * 2}]), "their number differs"),
    "coco without any": (json.dumps([COCO | {"keypoints": []}]), "have no keypoints"),
    "coco with too few names": (
        json.dumps({"annotations": [COCO], "categories": [{"id": 1, "keypoints": ["a", "b"]}]}),
        "2 different names for 1 keypoints",
    ),
    "coco with a bone to nowhere": (
        json.dumps({"annotations": [COCO], "categories": [{"id": 1, "keypoints": ["a"], "skeleton": [[1, 2]]}]}),
        "[1, 2] is no bone",
    ),
    "openpose without people": (openpose_frame([]), "has nobody in it"),
    "openpose with another body": (openpose_frame([torch.full((4, 3), 5.0)]), "has 4 keypoints"),
    "openpose in shares": (openpose_frame([torch.full((25, 3), 0.5)]), "not in pixels"),
    "openpose without numbers": (
        json.dumps({"people": [{"pose_keypoints_2d": [1, 2]}]}),
        "no list of x, y, confidence",
    ),
    "deeplabcut without coords": ("scorer,me,me\nbodyparts,a,a\n0,1,2\n", "no rows scorer, bodyparts and coords"),
    "deeplabcut without rows": ("scorer,me,me\nbodyparts,a,a\ncoords,x,y\n", "no rows"),
    "deeplabcut with a short row": ("scorer,me,me\nbodyparts,a,a\ncoords,x,y\n0,1\n", "row 4: has another number"),
    "deeplabcut with a word": ("scorer,me,me\nbodyparts,a,a\ncoords,x,y\n0,1,b\n", "no number"),
    "deeplabcut with z": ("scorer,me,me\nbodyparts,a,a\ncoords,x,z\n0,1,2\n", "column me/a/z"),
    "tracks with a short frame": (json.dumps(TRACKS | {"uv": [[[1, 2]], []]}), "uv[1]: is not one entry for each of 1"),
    "tracks with a word": (json.dumps(TRACKS | {"uv": [[[1, 2]], [[1, "2"]]]}), "uv[1][0]"),
    "tracks with a weight of 2": (json.dumps(TRACKS | {"weights": [[1], [2]]}), "2 is no weight"),
    "tracks with few weights": (json.dumps(TRACKS | {"weights": [[1]]}), "weights: are not those of 2 frames"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    text, says = WRONG[name]
    (tmp_path / "k.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        read_keypoint_file(tmp_path / "k.txt", 96, 64)
    assert "k.txt" in str(caught.value)
    assert says in str(caught.value)


def test_damaged_and_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv, weights = drawn()
    whole = write_sleap(tmp_path / "whole.h5", uv, weights).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.bin").write_bytes(b"\xff\xfe\x00\x01" * 9)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/0_keypoints.json").write_text("{}")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["conv1"] = np.zeros(3)
    for name, says in (
        ("cut.h5", "damaged HDF5"),
        ("noise.bin", "neither text nor HDF5"),
        ("empty", "folder without any file *_keypoints.json"),
        ("other", "no list of people"),
        ("weights.h5", "but conv1"),
        ("none.json", "no such file"),
    ):
        with pytest.raises(InputError, match="(?i)" + says.replace("*", ".")):
            read_keypoint_file(tmp_path / name, 96, 64)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"kg4d\[hdf5\]"):
        read_keypoint_file(tmp_path / "whole.h5", 96, 64)


def test_a_table_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "harm").touch, ())

    uv, weights = drawn()
    WRITERS["deeplabcut table"][1](tmp_path / "k.h5", uv, weights)
    with h5py.File(tmp_path / "k.h5", "a") as file:
        file["df_with_missing/table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(Harm(), 0))
    with pytest.raises(InputError, match="refused"):
        read_keypoint_file(tmp_path / "k.h5", 96, 64)
    assert not (tmp_path / "harm").exists()
