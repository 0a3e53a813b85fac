"""Small pieces of work on the CPU, each on one thread, as many at a time as torch has threads, or eight."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_MOST = 8  # at a time: each holds the layers of its own images

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in the order of the items, without gradients.

    What one piece gives does not depend on the number of threads, and no thread waits for the others at every layer:
    where other programs use the cores too, that would cost a multiple.
    """
    threads = torch.get_num_threads()

    def alone(item: Item) -> Result:
        with torch.inference_mode():
            return work(item)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, _MOST)) as pool:
            yield from pool.map(alone, items)
    finally:
        torch.set_num_threads(threads)
