"""A fit uses one device; another wish is refused before anything is built."""

import pytest

from kg4d.stages.runner import TrainerConfig


@pytest.mark.parametrize("devices", ["2", "auto", "-1", "0,1", "1,", "nonsense", "0"])
def test_several_devices_are_refused(devices: str) -> None:
    with pytest.raises(ValueError, match=r"trainer.devices: must be 1, .* renderer.device"):
        TrainerConfig(devices=devices)


def test_strategies_for_several_devices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer.strategy: must be auto"):
        TrainerConfig(strategy="ddp")
