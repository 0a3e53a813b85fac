"""What processes that another one has started have in common."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """End this process as soon as the one that has started it is gone, however that ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def environment_of(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def has_launcher() -> bool:
    """Whether torchrun or SLURM may have started this process, as one of several or alone."""
    return "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def threads_of_each(count: int) -> dict[str, str]:
    """Environment of each of `count` processes that share the cores out; as it is where somebody has said how many."""
    name = "OMP_NUM_THREADS"
    return {name: os.environ.get(name, str(max(1, cores() // count)))}
