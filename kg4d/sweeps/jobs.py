"""What is to be done: one job a fit, and in what state its folder is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kg4d.config.load import Run
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.runs.folder import RunFolder


@dataclass(frozen=True)
class Job:
    """One fit among others.

    Attributes:
        run: Its scene, variant and seed, with the configuration.
        label: What it is among the others; its log begins with it.
        resume: Go on with what lies in its folder.
        overwrite: Replace a finished run there.
        before: Called with the configuration in the process of the fit, before it; a function of a module, which other
            processes can import.
        reports: How often the fit says, while the motion is fitted, how it does on held-out frames.
        film: File that gets what a live page shows of it; None for none.
    """

    run: Run[ExperimentConfig]
    label: str
    resume: bool = False
    overwrite: bool = False
    before: Callable[[ExperimentConfig], None] | None = None
    reports: int = 0
    film: Path | None = None

    @property
    def folder(self) -> RunFolder:
        """Where it lies."""
        return RunFolder.of(self.run.config)

    def on(self, gpus: int) -> "Job":
        """The job for a process that sees so many GPUs, all of which it uses; with 0 or 1 nothing changes."""
        if gpus < 2:
            return self
        config = self.run.config
        config = replace(config, trainer=replace(config.trainer, devices=str(gpus)))
        return replace(self, run=replace(self.run, config=config))


class State(StrEnum):
    """How far the run in a folder is."""

    DONE = "done"
    CUT_SHORT = "cut short"
    TO_DO = "to do"
    DIFFERENT = "other settings"  # somebody has fitted something else there


def state_of(run: Run[ExperimentConfig]) -> State:
    """Look into the folder of a run.

    Raises:
        InputError: Its files are damaged.
    """
    folder = RunFolder.of(run.config)
    if not folder.config.is_file():
        return State.TO_DO
    if not folder.matches(run.config):
        return State.DIFFERENT
    return State.DONE if folder.is_done(run.config) else State.CUT_SHORT


def label_of(run: Run[ExperimentConfig], number: int, total: int) -> str:
    """A run among `total` ones, counted from 1."""
    return f"{run.scene}, {run.variant}, seed {run.seed} ({number} of {total})"


def jobs_of(runs: Sequence[Run[ExperimentConfig]], resume: bool = False, overwrite: bool = False) -> list[Job]:
    """A job for each run.

    Raises:
        InputError: A finished run would be replaced without being asked for.
    """
    if not (resume or overwrite):
        for one in runs:
            RunFolder.of(one.config).check_unfinished()
    return [Job(one, label_of(one, number, len(runs)), resume, overwrite) for number, one in enumerate(runs, start=1)]


def listing(runs: Sequence[Run[ExperimentConfig]]) -> list[str]:
    """A line for each run: its number, its state, what it is, and its folder."""
    words = [
        (
            str(number),
            str(_known_state(one)),
            one.scene,
            one.variant,
            f"seed {one.seed}",
            str(RunFolder.of(one.config).path),
        )
        for number, one in enumerate(runs, start=1)
    ]
    widths = [max(map(len, column)) for column in zip(*words, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in words]


def _known_state(run: Run[ExperimentConfig]) -> str:
    try:
        return state_of(run)
    except InputError:
        return "damaged"
