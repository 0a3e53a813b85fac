import json
from pathlib import Path

import pytest
import torch

from kg4d.errors import InputError
from kg4d.priors.base import KeypointTracks
from kg4d.priors.keypoints.marked import SupportKeypoints, read_support, write_support
from kg4d.priors.keypoints.spread import span_bones, spread_keypoints
from tests.priors.textures import picture

GOOD = {"names": ["hip", "knee", "foot"], "parents": [-1, 0, "knee"], "uv": [[10, 10.5], [20, 30], [96, 0]]}


def write(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps(GOOD | changes))
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    found = read_support(write(tmp_path / "k.json"), 96, 96)
    assert found.names == ("hip", "knee", "foot")
    assert found.parents == (-1, 0, 1)
    assert torch.equal(found.uv, torch.tensor([[10, 10.5], [20, 30], [96, 0]]))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    given = SupportKeypoints(("a", "b"), (-1, 0), torch.tensor([[1.25, 2.5], [3.0, 4.0]]))
    write_support(tmp_path / "k.json", given)
    found = read_support(tmp_path / "k.json", 8, 8)
    assert (found.names, found.parents) == (given.names, given.parents)
    assert torch.equal(found.uv, given.uv)


def test_parents_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(json.dumps({"names": ["a"], "uv": [[1, 1]]}))
    assert read_support(tmp_path / "k.json", 8, 8).parents == (-1,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"names": []}, "names: is missing or empty"),
        ({"names": ["hip", "hip", "foot"]}, "names[1]: 'hip' is there twice"),
        ({"names": ["hip", " ", "foot"]}, "names[1]"),
        ({"names": ["hip", 3, "foot"]}, "names[1]"),
        ({"names": ["hip", "knee"]}, "parents: 3 entries for 2 names"),
        ({"uv": [[1, 1]]}, "uv: 1 entries for 3 names"),
        ({"uv": None}, "uv: no list"),
        ({"parents": [-1, 0, "toe"]}, "parents[2]: 'toe' is no keypoint"),
        ({"parents": [-1, 0, 3]}, "parents[2]"),
        ({"parents": [-1, 0, True]}, "parents[2]"),
        ({"parents": [1, 0, 0]}, "circle"),
        ({"parents": [0, 0, 0]}, "circle"),
        ({"uv": [[1, 1], [2, 2], [96.5, 0]]}, "uv[2]: (96.5, 0) lies outside the image of 96 x 96 px"),
        ({"uv": [[1, 1], [-1, 2], [0, 0]]}, "uv[1]"),
        ({"uv": [[1, 1], [float("nan"), 2], [0, 0]]}, "uv[1]"),
        ({"uv": [[1, 1], ["x", 2], [0, 0]]}, "uv[1]"),
        ({"uv": [[1, 1], [1, 2, 3], [0, 0]]}, "uv[1]"),
    ],
)
def test_a_wrong_file_is_named_with_the_entry(tmp_path: Path, changes: dict, says: str) -> None:
    path = write(tmp_path / "k.json", **changes)
    with pytest.raises(InputError) as caught:
        read_support(path, 96, 96)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"names"'])
def test_what_is_no_such_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.json").write_text(text)
    with pytest.raises(InputError, match="k.json"):
        read_support(tmp_path / "k.json", 96, 96)
    with pytest.raises(InputError, match="no such file"):
        read_support(tmp_path / "none.json", 96, 96)


def test_spread_keypoints_lie_on_the_object_far_from_one_another() -> None:
    image = picture()
    found = spread_keypoints(image, 12)
    assert found.names[:2] == ("auto_00", "auto_01")
    inside = image[..., 3][found.uv[:, 1].long(), found.uv[:, 0].long()]
    assert (inside > 0.5).all()
    distances = torch.cdist(found.uv, found.uv) + 1e3 * torch.eye(12)
    assert distances.min() > 6
    assert sum(parent < 0 for parent in found.parents) == 1
    few = spread_keypoints(image, 5)
    assert torch.equal(few.uv, found.uv[:5])  # more keypoints refine fewer


def test_spread_keypoints_need_no_texture_but_room() -> None:
    plain = picture()
    plain[..., :3] = 0.5
    assert len(spread_keypoints(plain, 16).names) == 16
    speck = torch.zeros(32, 32, 4)
    speck[4:6, 4:6] = 1
    assert len(spread_keypoints(speck, 4).names) == 4
    with pytest.raises(InputError, match=r"keypoints.count.*at most 4"):
        spread_keypoints(speck, 5)


def bar(height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.ones(1, height, width, 1)


def test_bones_are_the_minimum_spanning_tree() -> None:
    uv = torch.tensor([[5.0, 5.0], [15.0, 5.0], [35.0, 5.0], [24.0, 5.0]])
    assert span_bones(KeypointTracks(uv[None], torch.ones(1, 4)), bar()) == (-1, 0, 3, 1)


def test_bones_do_not_cross_the_background() -> None:
    matte = bar()
    matte[:, 4:, 12:20] = 0  # a U upside down: two legs, joined at the top
    uv = torch.tensor([[5.0, 30.0], [27.0, 30.0], [5.0, 2.0], [27.0, 2.0]])
    assert span_bones(KeypointTracks(uv[None], torch.ones(1, 4)), matte) == (-1, 3, 0, 2)
    assert span_bones(KeypointTracks(uv[None], torch.ones(1, 4)), bar())[1] == 0


def test_bones_do_not_join_what_parts_later() -> None:
    first = torch.tensor([[10.0, 10.0], [10.0, 14.0], [20.0, 12.0]])
    later = torch.tensor([[10.0, 10.0], [30.0, 14.0], [20.0, 12.0]])
    mattes = bar().expand(2, -1, -1, -1)
    parted = KeypointTracks(torch.stack([first, later]), torch.ones(2, 3))
    assert span_bones(parted, mattes) == (-1, 2, 0)
    unsure = KeypointTracks(parted.uv, torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.2, 1.0]]))
    assert span_bones(unsure, mattes)[1] == 0
