"""Trials on pretended cards."""

import os
from pathlib import Path

import pytest

from kg4d.errors import InputError
from kg4d.sweeps.cards import Card, cards_of_machine, places_on_cards, places_on_cores
from kg4d.utils.processes import cores

FOUR = [Card(number, 80.0, 80.0) for number in range(4)]


def visible(gpus: list[int], *rules: float, cards: list[Card] = FOUR) -> list[str]:
    return [place.environment["CUDA_VISIBLE_DEVICES"] for place in places_on_cards(gpus, *rules, look=lambda: cards)]


def test_cards_are_filled_evenly() -> None:
    assert visible([0, 1, 2, 3]) == ["0", "1", "2", "3"]
    assert visible([3, 1], 2) == ["3", "1", "3", "1"]


def test_a_fit_may_take_several() -> None:
    assert visible([0, 1, 2, 3], 1, 2) == ["0,1", "2,3"]
    assert visible([0, 1, 2], 1, 2) == ["0,1"]  # the third one stays idle
    assert {place.gpus for place in places_on_cards([0, 1], 1, 2, look=lambda: FOUR)} == {2}


@pytest.mark.parametrize(
    ("gpus", "rules", "message"),
    [
        ([0, 7], (1, 1), "there is no GPU 7 .choose from 0, 1, 2, 3"),
        ([0], (1, 2), "1 are too few for fits on 2"),
        ([0], (2, 2), "2 fits on each GPU and 2 GPUs for each fit"),
        ([0], (0, 1), "0 fits on each GPU"),
        ([0], (3, 1, 30.0), "GPU 0 has 80.0 of 80.0 GiB free, and 90.0 are needed"),
    ],
)
def test_what_cannot_be_placed_is_said(gpus: list[int], rules: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        visible(gpus, *rules)


def test_memory_that_others_use_is_not_free() -> None:
    cards = [Card(0, 10.0, 80.0), Card(1, 79.0, 80.0)]
    assert visible([1], 2, 1, 20.0, cards=cards) == ["1", "1"]
    with pytest.raises(InputError, match=r"GPU 0 has 10.0 of 80.0 GiB free"):
        visible([0, 1], 1, 1, 20.0, cards=cards)


def pretend_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_the_driver_says_which_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_driver(tmp_path, monkeypatch, "echo '0, 81038, 81559'; echo '1, 1024, 81559'")
    assert cards_of_machine() == [Card(0, 81038 / 1024, 81559 / 1024), Card(1, 1.0, 81559 / 1024)]


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found"])
def test_without_a_gpu_the_driver_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    pretend_driver(tmp_path, monkeypatch, script)
    with pytest.raises(InputError, match=r"--gpus: nvidia-smi does not say which there are"):
        cards_of_machine()


def test_the_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [place.environment for place in places_on_cores(2)] == [{"OMP_NUM_THREADS": str(max(1, cores() // 2))}] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert places_on_cores(3)[0].environment == {"OMP_NUM_THREADS": "5"}
    with pytest.raises(InputError, match=r"--jobs: must be at least 1, not 0"):
        places_on_cores(0)
