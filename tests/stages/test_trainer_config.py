"""Settings of the processes of a fit that make no sense are refused where they are read."""

import pytest

from kg4d.stages.settings import TrainerConfig


@pytest.mark.parametrize("devices", ["0,1", "1,", "nonsense", "0", "00", "", "-2", "²"])
def test_what_is_no_number_of_devices_is_refused(devices: str) -> None:
    with pytest.raises(ValueError, match=r"trainer.devices: must be a number above 0, auto or -1"):
        TrainerConfig(devices=devices)


@pytest.mark.parametrize("devices", ["1", "2", "16", "auto", "-1"])
def test_numbers_of_devices_are_accepted(devices: str) -> None:
    assert TrainerConfig(devices=devices).devices == devices


def test_other_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trainer.strategy: must be auto or ddp"):
        TrainerConfig(strategy="fsdp")
