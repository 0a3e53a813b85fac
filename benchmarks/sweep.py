"""What it costs to have fits done side by side, against the same fits back to back in as many processes.

The ideal is a process a core that does its share of the fits one after the other, without a word to anybody, with the
same number of threads; its clock starts when the process starts. Both are measured in one call, in turns. The fits are
all alike and shorter than those of any study, some 20 s each. What the sweep adds before the first fit and after
the last one, tables and pictures included, is counted in full.

    python benchmarks/sweep.py [--runs 2] [--json F]
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kg4d.utils.before_torch  # noqa: F401  (before torch, as in every command)

sys.path.insert(0, str(Path(__file__).parent.parent))

import yaml

from benchmarks._harness import Row, arguments, report
from kg4d.utils.processes import cores, environment_of, threads_of_each

ROOT = Path(__file__).parent.parent
FITS = 6  # of each process
SETTINGS = {
    "extends": str(ROOT / "configs/kg4d.yaml"),
    "name": "throughput",
    "scene": "synthetic:walker",
    "image_size": 64,
    "gaussians": {"count": 1000},
    "static": {"steps": 300},
    "dynamic": {"steps": 300},
    "refine": {"steps": 10},
    "trainer": {"progress_bar": False},
    "tracking": {"wandb": {"mode": "disabled"}},
    "evaluation": {"networks": False},
    "export": {"formats": []},
}
BACK_TO_BACK = """
import sys
import kg4d.utils.before_torch
from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig
from kg4d.pipeline import fit
file, output, *seeds = sys.argv[1:]
for one in expand(ExperimentConfig, file, [f"output={output}", f"seeds=[{','.join(seeds)}]"], without="sweep"):
    fit(one.config)
"""


def ideal(file: Path, output: Path, processes: int) -> float:
    """Wall seconds of the fits back to back, some in each process."""
    begin = time.perf_counter()
    with environment_of(threads_of_each(processes)):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", BACK_TO_BACK, file, output, *map(str, range(first, FITS * processes, processes))]
            )
            for first in range(processes)
        ]
        statuses = [process.wait() for process in running]  # of all of them, before one is judged
        if any(statuses):
            raise RuntimeError("a fit failed")
    return time.perf_counter() - begin


def swept(file: Path, output: Path, processes: int) -> float:
    """Wall seconds of `kg4d.sweep`, from the command to its end."""
    begin = time.perf_counter()
    words = ["--config", file, "--jobs", str(processes), f"output={output}"]
    subprocess.run([sys.executable, "-m", "kg4d.sweep", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def measure(processes: int, runs: int) -> list[Row]:
    """Both in turns."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        sweep = {"parameters": {"wgf.weight": {"values": [10.0]}}}
        seeds = list(range(FITS * processes))
        file.write_text(yaml.safe_dump({**SETTINGS, "seeds": seeds, "sweep": sweep}), encoding="utf-8")
        pairs = []
        for turn in range(runs):
            one = ideal(file, Path(folder) / f"ideal{turn}", processes)
            other = swept(file, Path(folder) / f"swept{turn}", processes)
            print(f"back to back {one:.1f} s, swept {other:.1f} s", flush=True)
            pairs.append((one, other))
    ratio = statistics.median(one / other for one, other in pairs)
    added = statistics.median((other - one) * processes / len(seeds) for one, other in pairs)
    what = f"{len(seeds)} fits of {pairs[0][0] * processes / len(seeds):.1f} s, {processes} at a time"
    against = "the same fits back to back in as many processes"
    return [
        Row(f"throughput of a sweep: {what}", ratio, "of ideal", 0.95, "higher", against),
        Row(f"added per fit: {what}", added, "s", 3.0, "lower", against),
    ]


def main() -> None:
    """Measure with a process for each core."""
    args = arguments(__doc__)
    report(measure(cores(), min(args.runs, 3)), args.json)


if __name__ == "__main__":
    main()
