from dataclasses import replace

import pytest
import torch

from kg4d.data.records import Keypoints
from kg4d.data.studies.keypoint_subset import choose_keypoints
from kg4d.data.studies.settings import KeypointsConfig
from kg4d.errors import InputError


def chain() -> Keypoints:
    """Five keypoints on a line, each the child of the one before; the last is hidden in the first frame."""
    uv = torch.stack([torch.tensor([0.0, 10.0, 20.0, 31.0, 40.0]), torch.zeros(5)], dim=-1)
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    return Keypoints(
        names=("a", "b", "c", "d", "e"),
        parents=(-1, 0, 1, 2, 3),
        uv=uv.expand(3, 5, 2),
        weights=weights.expand(3, 5),
        truth=torch.arange(45.0).reshape(3, 5, 3),
    )


def test_points_spread_from_the_middle_and_hidden_ones_come_last() -> None:
    chosen = {count: choose_keypoints(chain(), KeypointsConfig(count=count)) for count in (1, 2, 4, 5)}
    names = {count: "".join(kept.names) for count, kept in chosen.items() if kept is not None}
    assert names == {1: "c", 2: "ac", 4: "abcd", 5: "abcde"}  # c is nearest to the mean of a, b, c, d: 15.25


def test_bones_lead_to_the_nearest_kept_ancestor() -> None:
    kept = choose_keypoints(chain(), KeypointsConfig(count=2))
    assert kept is not None
    assert kept.names == ("a", "c")
    assert kept.parents == (-1, 0)
    assert kept.truth is not None
    assert torch.equal(kept.truth, chain().truth[:, [0, 2]])  # type: ignore[index]


def test_all_none_and_too_many() -> None:
    everything = chain()
    assert choose_keypoints(everything, KeypointsConfig()) is everything
    assert choose_keypoints(None, KeypointsConfig(count=3)) is None
    assert choose_keypoints(chain(), KeypointsConfig(count=0)) is None
    with pytest.raises(InputError, match=r"keypoints\.count"):
        choose_keypoints(chain(), KeypointsConfig(count=6))


def test_which_way_bones_lean_is_kept_for_bones_that_stay() -> None:
    leaning = replace(chain(), leans=torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]).expand(3, 5))
    kept = choose_keypoints(leaning, KeypointsConfig(count=3))
    assert kept is not None
    assert kept.names == ("a", "c", "d")
    assert kept.leans is not None
    assert torch.equal(kept.leans, torch.tensor([0.0, 0.0, 0.3]).expand(3, 3))  # c hangs on a now, d still on c
