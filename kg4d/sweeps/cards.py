"""GPUs: which there are, what is free on them, and which trial gets which."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kg4d.errors import InputError
from kg4d.utils.processes import cores, threads_of_each

_QUERY = ["nvidia-smi", "--query-gpu=index,memory.free,memory.total", "--format=csv,noheader,nounits"]


class Card(NamedTuple):
    """One GPU, with its memory in GiB."""

    number: int
    free: float
    total: float


def cards_of_machine() -> list[Card]:
    """Ask the driver.

    Raises:
        InputError: There is no driver, or it finds no GPU.
    """
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=60).stdout
        return [Card(int(index), float(free) / 1024, float(total) / 1024) for index, free, total in _rows(said)]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        what = f"nvidia-smi does not say which there are ({type(error).__name__})"
        raise InputError("--gpus", what, "leave --gpus away, or see docs/gpu.md") from error


def _rows(said: str) -> list[list[str]]:
    return [line.split(",") for line in said.splitlines() if line.strip()]


@dataclass(frozen=True)
class Place:
    """Where one fit after the other runs.

    Attributes:
        environment: Variables of its process: threads, and which GPUs it sees.
        gpus: How many it sees; 0 leaves it what there is.
    """

    environment: dict[str, str]
    gpus: int = 0


def places_on_cores(jobs: int) -> list[Place]:
    """As many places as `jobs`, which share the cores out.

    Raises:
        InputError: There is less than one.
    """
    if jobs < 1:
        raise InputError("--jobs", f"must be at least 1, not {jobs}", f"this machine has {cores()} cores")
    return [Place(threads_of_each(jobs))] * jobs


def places_on_cards(
    gpus: Sequence[int],
    per_gpu: int = 1,
    gpus_per_run: int = 1,
    gigabytes: float = 0.0,
    look: Callable[[], list[Card]] | None = None,
) -> list[Place]:
    """Places on GPUs, on different ones first.

    Args:
        gpus: Which, as nvidia-smi numbers them.
        per_gpu: Fits at a time on each.
        gpus_per_run: GPUs of each fit, which then shares its steps out among as many processes.
        gigabytes: Memory that has to be free for each fit, on each of its GPUs.
        look: Finds the GPUs; asks the driver when None.

    Raises:
        InputError: There is no such GPU, or too little memory is free on one.
    """
    if per_gpu < 1 or gpus_per_run < 1 or (per_gpu > 1 and gpus_per_run > 1):
        what = f"{per_gpu} fits on each GPU and {gpus_per_run} GPUs for each fit"
        raise InputError("--per-gpu", what, "one of them has to be 1")
    found = {card.number: card for card in (look or cards_of_machine)()}
    chosen = list(dict.fromkeys(gpus))
    for index in chosen:
        if index not in found:
            raise InputError("--gpus", f"there is no GPU {index}", f"choose from {', '.join(map(str, found))}")
        free, needed = found[index].free, gigabytes * per_gpu
        if free < needed:
            what = f"GPU {index} has {free:.1f} of {found[index].total:.1f} GiB free, and {needed:.1f} are needed"
            raise InputError("--gpus", what, "choose another, or lower --per-gpu or sweep.gpu_gigabytes")
    groups = [chosen[first : first + gpus_per_run] for first in range(0, len(chosen), gpus_per_run)]
    groups = [group for group in groups if len(group) == gpus_per_run]
    if not groups:
        raise InputError("--gpus", f"{len(chosen)} are too few for fits on {gpus_per_run}", "name more")
    threads = threads_of_each(len(groups) * per_gpu)
    visible = [",".join(map(str, group)) for group in groups] * per_gpu
    return [Place({**threads, "CUDA_VISIBLE_DEVICES": names}, gpus_per_run) for names in visible]
