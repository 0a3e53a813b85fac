"""Where the time of a stage goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Wall seconds by name. `start` and `mark` cut a step into named slices without nesting.

    On CUDA the device is synchronised at each cut, so that a slice holds its own kernels.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device = device
        self._last = 0.0
        self._begun: float | None = None

    def begin_total(self) -> None:
        """From here on everything counts as `total`, on top of what an earlier process has spent."""
        self._begun = time.perf_counter()

    def snapshot(self) -> dict[str, float]:
        """The seconds so far, with `total` up to now."""
        running = {} if self._begun is None else {"total": self.seconds["total"] + time.perf_counter() - self._begun}
        return {**self.seconds, **running}

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def start(self) -> None:
        """Begin a slice here."""
        self._last = self._now()

    def mark(self, name: str) -> None:
        """End the slice that is running, under `name`, and begin the next."""
        now = self._now()
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
