"""Where the time of a stage goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_HELD = 1000  # marks on a GPU that wait to be read


class Clock:
    """Wall seconds by name. `start` and `mark` cut a step into named slices without nesting.

    On CUDA a mark is an event in the stream: a slice holds its own kernels, and no step waits for the device. The
    events are read when the seconds are asked for, or when many have come together.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._on_gpu = device.type == "cuda"
        self._last = 0.0
        self._begun: float | None = None
        self._events: list[tuple[str | None, torch.cuda.Event]] = []  # None begins a slice

    def begin_total(self) -> None:
        """From here on everything counts as `total`, on top of what an earlier process has spent."""
        self._begun = time.perf_counter()

    def snapshot(self) -> dict[str, float]:
        """The seconds so far, with `total` up to now."""
        self._read_events()
        running = {} if self._begun is None else {"total": self.seconds["total"] + time.perf_counter() - self._begun}
        return {**self.seconds, **running}

    def start(self) -> None:
        """Begin a slice here."""
        if self._on_gpu:
            self._record(None)
        else:
            self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """End the slice that is running, under `name`, and begin the next."""
        if self._on_gpu:
            self._record(name)
            return
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now

    @contextmanager
    def slice(self, name: str) -> Iterator[None]:
        """Book what runs inside under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def _record(self, name: str | None) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._events.append((name, event))
        if len(self._events) > _HELD:
            self._read_events()

    def _read_events(self) -> None:
        if not self._events:
            return
        self._events[-1][1].synchronize()
        for (_, begun), (name, ended) in zip(self._events, self._events[1:], strict=False):
            if name is not None:
                self.seconds[name] += begun.elapsed_time(ended) / 1000
        self._events = self._events[-1:]
