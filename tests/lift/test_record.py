from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.lift.record import Lift
from tests.compare import assert_same


def lift() -> Lift:
    generator = torch.Generator().manual_seed(0)
    tracks, *confidence = (torch.rand(4, 2, width, generator=generator) for width in (3, 1, 1))
    return Lift(tracks, confidence[0][..., 0], confidence[1][..., 0], 0.7)


def test_a_checkpoint_gives_the_lift_back_without_its_rivals(tmp_path: Path) -> None:
    torch.save(replace(lift(), rivals=(lift(),)).state(), tmp_path / "lift.pt")
    found = Lift.from_state(torch.load(tmp_path / "lift.pt", weights_only=True))
    assert_same(found, lift(), atol=0)


def test_checkpoints_with_the_former_keys_are_read() -> None:
    expected = lift()
    former = {
        "tracks": expected.tracks,
        "trust": expected.detection_confidence,
        "certainty": expected.track_confidence,
        "reliability": expected.overall_confidence,
    }
    assert_same(Lift.from_state(former), expected, atol=0)


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="sharpness"):
        Lift.from_state({**lift().state(), "sharpness": 1.0})


def test_rivals_move_to_a_device_too() -> None:
    moved = replace(lift(), rivals=(lift(),)).to(torch.device("meta"))
    assert moved.rivals[0].track_confidence.device.type == moved.detection_confidence.device.type == "meta"
