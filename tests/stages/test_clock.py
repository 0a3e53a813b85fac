"""Where the time of a stage goes, on a CPU and on a GPU."""

import time

import pytest
import torch

from kg4d.stages.clock import Clock


def test_slices_are_cut_by_marks() -> None:
    clock = Clock(torch.device("cpu"))
    clock.start()
    time.sleep(0.02)
    clock.mark("render")
    clock.mark("losses")
    seconds = clock.snapshot()
    assert seconds["render"] >= 0.02
    assert seconds["losses"] < 0.02


class Stream:
    """Stands for a GPU: events get the time that the stream has reached."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, 0

    def event(self, enable_timing: bool) -> "Event":
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, stream: Stream) -> None:
        self.stream, self.at = stream, -1.0

    def record(self) -> None:
        self.at = self.stream.now

    def synchronize(self) -> None:
        self.stream.waits += 1

    def elapsed_time(self, other: "Event") -> float:
        return other.at - self.at


def test_on_a_gpu_nothing_waits_until_the_seconds_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("a step waits"))
    clock = Clock(torch.device("cuda", 0))
    for _ in range(2):
        clock.start()
        stream.now += 300
        clock.mark("render")
        stream.now += 100
        clock.mark("losses")
        stream.now += 5000  # a preview, which books its own time
    assert stream.waits == 0
    assert clock.snapshot() == pytest.approx({"render": 0.6, "losses": 0.2})
    assert clock.snapshot() == pytest.approx({"render": 0.6, "losses": 0.2})
    stream.now += 50
    clock.mark("losses")
    assert clock.snapshot()["losses"] == pytest.approx(5.25)  # the slice that was open went on


def test_the_events_of_a_long_stage_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    clock = Clock(torch.device("cuda", 0))
    clock.start()
    for _ in range(2500):
        stream.now += 1
        clock.mark("render")
    assert stream.waits == 2
    assert clock.snapshot()["render"] == pytest.approx(2.5)
