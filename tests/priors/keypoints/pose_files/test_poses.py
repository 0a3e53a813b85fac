"""From poses of a file to keypoints of a clip: its frames, its pixels, its individual."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.data.spans import evenly_spaced
from kg4d.data.videos import Clip
from kg4d.errors import InputError
from kg4d.priors.keypoints.pose_files.poses import Poses, of_clip, one_individual, seen_support

FILE = Path("k.csv")


def poses(labels: tuple[str, ...], individuals: int = 1) -> Poses:
    """Keypoint j of individual i in row t is at (10 t + i, 20 j + 1)."""
    t, i, j = torch.meshgrid(*(torch.arange(n) for n in (len(labels), individuals, 2)), indexing="ij")
    uv = torch.stack([10 * t + i, 20 * j + 1], dim=-1).float()
    return Poses("test", ("a", "b"), None, uv, torch.ones(len(labels), individuals, 2), labels)


def clip(frames: int, source: int | None = None, files: tuple[str, ...] = ()) -> Clip:
    picked = tuple(evenly_spaced(source or frames, frames))
    return Clip(torch.ones(frames, 50, 100, 4), 8.0, source or frames, picked, tuple(map(Path, files)))


def test_frames_are_those_of_the_part_that_is_used() -> None:
    part = Clip(torch.ones(2, 50, 100, 4), 8.0, 5, picked=(2, 3))
    assert rows(of_clip(poses(("0", "1", "2", "3", "4")), part, FILE)) == [2, 3]


def rows(found: Poses) -> list[float | None]:
    """Which row of the file each frame shows."""
    shown = zip(found.uv[:, 0, 0, 0].tolist(), found.weights[:, 0, 0].tolist())
    return [x / 10 if weight > 0 else None for x, weight in shown]


@pytest.mark.parametrize(
    ("labels", "of", "expected"),
    [
        (("0", "1", "2"), clip(3), [0, 1, 2]),
        (("0", "1", "2", "3", "4"), clip(3, 5), [0, 2, 4]),  # thinned as the video is
        (("0", "2", "4"), clip(3, 5), [0, 1, 2]),
        (("0", "1"), clip(3, 5), [0, None, None]),  # frames 0, 2 and 4 are wanted
        (("img0.png", "img4.png"), clip(3, 5), [0, None, 1]),
        (("1", "2", "3", "5"), clip(3, 5), [0, 2, 3]),  # counted from 1
        (("b.png", "d.png"), clip(3, 5, ("b.jpg", "c.jpg", "d.jpg")), [0, None, 1]),
        (("x", "y", "z"), clip(3, 3, ("b.jpg", "c.jpg", "d.jpg")), [0, 1, 2]),
    ],
)
def test_frames_are_found(labels: tuple[str, ...], of: Clip, expected: list) -> None:
    assert rows(of_clip(poses(labels), of, FILE)) == expected


def test_one_frame_is_the_first() -> None:
    assert len(of_clip(poses(("img0077.png",)), clip(4), FILE).labels) == 1


@pytest.mark.parametrize("labels", [("0", "9"), ("a", "b"), tuple("012345678")])
def test_frames_of_another_video_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"has {len(labels)} frames, {labels[0]} to {labels[-1]}; the input has 5"):
        of_clip(poses(labels), clip(3, 5), FILE)


def test_images_of_another_size_are_scaled_and_of_another_shape_refused() -> None:
    found = of_clip(replace(poses(("0", "1")), sizes=((200, 100), (201, 100))), clip(2), FILE)
    assert found.uv[1, 0, 1].tolist() == pytest.approx([10 * 100 / 201, 21 / 2])
    with pytest.raises(InputError, match="0 of 100 x 100 px, the input is 100 x 50"):
        of_clip(replace(poses(("0", "1")), sizes=((100, 100), (100, 100))), clip(2), FILE)


def test_outside_the_image_is_no_keypoint() -> None:
    there = poses(("0", "1"))
    found = of_clip(replace(there, uv=there.uv + torch.tensor([0.0, 35.0])), clip(2), FILE)
    assert found.weights[:, 0].tolist() == [[1, 0], [1, 0]]
    with pytest.raises(InputError, match="no keypoint inside the first frame of 100 x 50 px"):
        of_clip(replace(there, uv=there.uv + 200), clip(2), FILE)


def test_the_individual_on_the_object_is_taken() -> None:
    two = poses(("0", "1"), individuals=2)
    two = replace(
        two, uv=torch.tensor([[[[5.0, 5.0]] * 2, [[30.0, 30.0]] * 2], [[[30.0, 30.0]] * 2, [[5.0, 5.0]] * 2]])
    )
    matte = torch.zeros(2, 50, 100, 1)
    matte[:, 20:40, 20:40] = 1
    found, said = one_individual(two, matte)
    assert found.uv[:, 0, 0].tolist() == [[30, 30], [30, 30]]
    assert "2 individuals: taken is in each frame the one whose keypoints lie on the object" in said

    tracked = replace(two, individuals=("ann", "bob"), weights=torch.tensor([[[1.0, 1.0], [0.5, 0.5]]] * 2))
    found, said = one_individual(tracked, matte)
    assert found.uv[:, 0, 0].tolist() == [[5, 5], [30, 30]]  # the same one in all frames
    assert "'ann'" in said

    found, said = one_individual(tracked, torch.zeros(2, 50, 100, 1))
    assert found.weights.min() == 1
    assert "the most confident keypoints" in said


def test_one_individual_is_no_choice() -> None:
    one = poses(("0",))
    assert one_individual(one, torch.ones(3, 50, 100, 1)) == (one, "")


def test_bones_skip_what_the_first_frame_does_not_show() -> None:
    four = Poses(
        "test",
        ("a", "b", "c", "d"),
        (-1, 0, 1, -1),
        torch.arange(8.0).reshape(1, 1, 4, 2),
        torch.tensor([[[1.0, 0, 1, 1]]]),
        ("0",),
    )
    found = seen_support(four)
    assert found.names == ("a", "c", "d")
    assert found.parents == (-1, 0, -1)
    assert found.uv.tolist() == [[0, 1], [4, 5], [6, 7]]
