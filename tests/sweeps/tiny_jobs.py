"""Fits of a second that several processes can do, and what happens to them."""

import os
import signal
from pathlib import Path

from kg4d.config.load import Run, expand
from kg4d.config.schema import ExperimentConfig
from kg4d.sweeps.attempt import Outcome
from kg4d.sweeps.engine import Report
from kg4d.sweeps.jobs import Job
from tests.tiny_runs import ROOT, TINY

QUICK = (
    *TINY,
    "image_size=24",
    "gaussians.count=60",
    "static.steps=2",
    "dynamic.steps=4",
    "refine.steps=0",
    "lift.steps=0",
    "wgf.weight=0",
    "evaluation.metrics=[test/psnr]",
    "export.formats=[]",
)


def quick_runs(output: Path, *overrides: str) -> list[Run[ExperimentConfig]]:
    """Runs of the preset `kg4d` at tiny size."""
    return expand(ExperimentConfig, ROOT / "experiments/kg4d.yaml", [*QUICK, f"output={output}", *overrides])


def kill_this_process(config: ExperimentConfig) -> None:
    """What happens where memory runs out; the second time it does not."""
    mark = Path(config.output) / f"killed_{config.seed}"
    if config.seed == 1 and not mark.exists():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Silent:
    """A board that keeps what it is told."""

    def __init__(self) -> None:
        self.begun_: list[Job] = []
        self.reports: list[Report] = []
        self.outcomes: list[Outcome] = []

    def begun(self, job: Job) -> None:
        self.begun_.append(job)

    def said(self, report: Report) -> None:
        self.reports.append(report)

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
