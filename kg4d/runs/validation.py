"""How a fit does on times that it does not see, told while it goes on: what a search may judge by, and end it by.

Only the reference video is looked at. Test views are for reporting: a search that saw them would tune on them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from kg4d.data.records import PosedImages
from kg4d.data.studies.frame_subset import seen_frames
from kg4d.errors import InputError
from kg4d.runs.build import RunInputs
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.measure import reference_psnr
from kg4d.utils.ranks import Ranks


class GivenUpError(Exception):
    """A fit was ended before its time, because others do better."""


@dataclass(frozen=True)
class Validation:
    """Who wants to know how the dynamic stage goes.

    Attributes:
        times: How often, at even distances; the last time is before its end.
        goes_on: Told the step and the PSNR of the held-out frames; says whether the fit goes on.
    """

    times: int
    goes_on: Callable[[int, float], bool]

    def steps(self, total: int) -> list[int]:
        """After which of a stage's steps they want to know.

        >>> Validation(3, lambda step, value: True).steps(100)
        [25, 50, 75]
        """
        return sorted({total * part // (self.times + 1) for part in range(1, self.times + 1)} - {0})


def held_out_frames(run: RunInputs) -> PosedImages:
    """Frames of the reference video that the fit does not see, in the world of the scene.

    Raises:
        InputError: It sees all.
    """
    reference, seen = run.whole_scene.reference, seen_frames(run.whole_scene, run.config.frames)
    hidden = ~torch.isin(torch.arange(len(reference)), seen)
    if not bool(hidden.any()):
        what = f"leaves none of the {len(reference)} frames to judge by"
        raise InputError("frames.hold_out", what, "lower it, to 2 or above, or set frames.every")
    return reference[hidden.nonzero()[:, 0]]


class Reports(Callback):
    """Measures the held-out frames after some steps, and ends the fit where nobody wants it any more.

    Args:
        validation: Who is told.
        fitted: The model as it stands.
        frames: The held-out frames.
        total: Steps of the stage.
        ranks: The processes of the fit; the first one measures and asks.

    Raises:
        GivenUpError: From the step after which the fit was given up.
    """

    def __init__(
        self, validation: Validation, fitted: FittedModel, frames: PosedImages, total: int, ranks: Ranks
    ) -> None:
        self._validation = validation
        self._fitted = fitted
        self._frames = frames
        self._steps = validation.steps(total)
        self._ranks = ranks

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Measure when it is time."""
        step = trainer.global_step
        if step not in self._steps:
            return
        asked = self._ranks.first
        goes_on = self._validation.goes_on(step, reference_psnr(self._fitted, self._frames)) if asked else True
        if not self._ranks.told(goes_on):
            raise GivenUpError(f"given up after step {step}")
