"""The runs of a sweep before they are begun: which are left to do, and whether they may be searched."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from kg4d.config.load import Run
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.sweeps.jobs import Job, State, label_of, state_of

_log = logging.getLogger(__name__)


def unfinished(runs: Sequence[Run[ExperimentConfig]], before: Callable[[ExperimentConfig], None] | None) -> list[Job]:
    """A job for each run that is not done."""
    numbered = list(enumerate(runs, start=1))
    left = [(number, one) for number, one in numbered if state_of(one) is not State.DONE]
    if len(left) < len(numbered):
        _log.info("%d of %d fits are done", len(numbered) - len(left), len(numbered))
    return [Job(one, label_of(one, number, len(runs)), True, before=before) for number, one in left]


def with_held_out_frames(runs: Sequence[Run[ExperimentConfig]]) -> None:
    """See that a search has something to judge by, and that no fit is trained on test views.

    Raises:
        InputError: Of the first run that is not so.
    """
    for one in runs:
        config = one.config
        if config.frames.every == 1 and config.frames.hold_out == 0:
            remedy = "set frames.hold_out=4, or frames.every"
            raise InputError("frames.hold_out", "a search judges by frames that the fit does not see", remedy)
        if config.dynamic.data.test_views or config.refine.data.frames.test_views:
            raise InputError("test_views", "a search must not see test views", "train without them")


def known_to_wandb(runs: Sequence[Run[ExperimentConfig]], job_type: str) -> list[Run[ExperimentConfig]]:
    """The same runs, known to W&B by what they are part of."""
    return [replace(one, config=_typed(one.config, job_type)) for one in runs]


def _typed(config: ExperimentConfig, job_type: str) -> ExperimentConfig:
    wandb = replace(config.tracking.wandb, job_type=job_type)
    return replace(config, tracking=replace(config.tracking, wandb=wandb))
