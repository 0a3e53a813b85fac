"""What a second thread gives the cpu renderer on two idle cores, and what it costs when the second core is taken.

Another process spins on the second core, pinned to it. This process may use that core and one other and no more,
however many the machine has. On a busy machine the figures mean little.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks._harness import Row, arguments, benchmark_scene, interleaved, report
from kg4d.render import build_renderer

SPIN = "import os\nos.sched_setaffinity(0, {{{core}}})\nprint('spinning', flush=True)\nwhile True: pass"


def step(count: int, size: int, threads: int) -> Callable[[], list[torch.Tensor]]:
    """A function that renders once and takes gradients back; gives all that came out."""
    scene, renderer = benchmark_scene(count, size, 3), build_renderer("cpu", threads=threads)
    weights = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))

    def run() -> list[torch.Tensor]:
        scene.clear()
        output = renderer(scene.gaussians, scene.cameras, features=scene.features)
        output.image.backward(weights)
        return [output.image.detach(), *(leaf.grad for leaf in scene.leaves().values() if leaf.grad is not None)]

    return run


@contextmanager
def core_taken(core: int) -> Iterator[None]:
    """Another process spins on `core` and nowhere else."""
    command = [sys.executable, "-S", "-c", SPIN.format(core=core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as spinning:
        assert spinning.stdout is not None
        assert spinning.stdout.readline()
        try:
            yield
        finally:
            spinning.kill()


def speed(count: int, size: int, second_core: int, runs: int) -> list[Row]:
    """Two threads against one, with the second core idle and taken."""
    work = {"one": step(count, size, 1), "two": step(count, size, 2)}
    idle = interleaved(work, runs)
    with core_taken(second_core):
        taken = interleaved(work, runs)
    name = f"{count:,} Gaussians, {size}², 3 channels"
    return [
        Row(f"{name}: two idle cores", idle["one"] / idle["two"], "x", 1.7, "higher", "one thread"),
        Row(f"{name}: second core taken", taken["two"] / taken["one"], "x", 1.1, "lower", "one thread"),
        Row(f"{name}: one thread", idle["one"] * 1e3, "ms", None, "lower", "itself"),
    ]


def same_bytes(count: int, size: int) -> Row:
    """How many of the image and the gradients are not the same to the last bit for 1, 2 and 3 threads."""
    expected, *others = (step(count, size, threads)() for threads in (1, 2, 3))
    differing = sum(not torch.equal(a, b) for other in others for a, b in zip(expected, other, strict=True))
    return Row("results of 2 and 3 threads that differ", differing, "of 12", 0, "lower", "one thread, to the last bit")


def main() -> None:
    """Run all cases on the first and the last core we may use: neighbours in number may be one core in truth."""
    args = arguments(__doc__)
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("nothing measured: needs two cores")
        report([], args.json)
        return
    os.sched_setaffinity(0, {cores[0], cores[-1]})  # before the first render: its threads inherit it
    report([*speed(20_000, 512, cores[-1], 2 * args.runs), same_bytes(20_000, 512)], args.json)


if __name__ == "__main__":
    main()
