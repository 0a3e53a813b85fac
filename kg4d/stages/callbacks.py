"""What happens around the steps of a stage: checkpoints, a clean stop, previews, how far it is."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from kg4d.stages.base import Stage
from kg4d.utils.files import replacing
from kg4d.utils.interrupts import Interrupted
from kg4d.utils.logs import Milestones

_log = logging.getLogger(__name__)


def save_checkpoint(trainer: lightning.Trainer, path: Path) -> None:
    """Write a checkpoint that is whole or absent; of several processes the first one does it."""
    assert isinstance(trainer.lightning_module, Stage)
    if not trainer.lightning_module.ranks.first:
        return
    with replacing(path) as part:
        trainer.save_checkpoint(part, weights_only=False)  # with the optimiser: a stage goes on from it


class LastCheckpoint(Callback):
    """Writes `path` every `every` steps, so that a kill loses no more than that.

    Args:
        path: The file, replaced each time.
        every: Steps between two writes; 0 never writes.
        saved: Called after each.
    """

    def __init__(self, path: Path, every: int, saved: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.every = every
        self.saved = saved

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write when it is time."""
        if self.every > 0 and trainer.global_step % self.every == 0:
            save_checkpoint(trainer, self.path)
            self.saved()

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write the rows of the steps before a checkpoint too: a run that goes on from it does not repeat them."""
        if self.every > 0 and trainer.global_step % self.every == 0:
            for logger in trainer.loggers:
                logger.save()


class CleanStop(Callback):
    """Turns the first SIGINT or SIGTERM into a stop at the end of the step, with a checkpoint; the second one kills.

    Of several processes all stop after the same step, whichever got the signal.

    Attributes:
        received: The signal that came.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(number)
        self.received = number
        _log.warning("stopping at the end of this step")

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Take over the signals; a program that trains outside its main thread keeps its own."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        except ValueError:
            self._previous.clear()

    def on_train_batch_end(self, trainer: lightning.Trainer, stage: lightning.LightningModule, *_: Any) -> None:
        """Stop where the state is whole."""
        assert isinstance(stage, Stage)
        if stage.ranks.anywhere(self.received is not None):
            self.received = self.received or signal.SIGTERM  # as what another process got is passed on
            save_checkpoint(trainer, self.path)
            trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, *_: Any) -> None:
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


class Previews(Callback):
    """Calls `draw(step)` every `every` steps and after the last one.

    Args:
        draw: Renders and writes the preview of the stage as it stands.
        every: Steps between two previews; 0 leaves only the last.
    """

    def __init__(self, draw: Callable[[int], None], every: int) -> None:
        self.draw = draw
        self.every = every

    def on_train_batch_end(self, trainer: lightning.Trainer, stage: lightning.LightningModule, *_: Any) -> None:
        """Draw when it is time."""
        step = trainer.global_step
        assert isinstance(stage, Stage)
        if step == stage.steps or (self.every > 0 and step % self.every == 0):
            with stage.clock.slice("previews"):
                self.draw(step)
            stage.clock.start()


class StageBar(TQDMProgressBar):
    """The progress bar, named after the stage."""

    def __init__(self, name: str) -> None:
        super().__init__(refresh_rate=10)
        self._name = name

    def init_train_tqdm(self) -> Any:
        """Put the stage's name in front."""
        bar = super().init_train_tqdm()
        bar.set_description(self._name)
        return bar

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count steps of the stage: there are no epochs here."""
        self.train_progress_bar.reset(trainer.max_steps)
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.set_description(self._name)

    def get_metrics(self, trainer: lightning.Trainer, stage: lightning.LightningModule) -> dict[str, Any]:
        """The values that the stage has logged last."""
        assert isinstance(stage, Stage)
        return dict(stage.shown)


class StageLines(Callback):
    """What files and pipes get in place of the progress bar: a line each tenth of the stage."""

    def on_train_start(self, trainer: lightning.Trainer, stage: lightning.LightningModule) -> None:
        """Begin to count, where a stage that goes on begins."""
        assert isinstance(stage, Stage)
        self._milestones = Milestones(stage.name, trainer.global_step, stage.steps)

    def on_train_batch_end(self, trainer: lightning.Trainer, stage: lightning.LightningModule, *_: Any) -> None:
        """Say a line when it is time."""
        assert isinstance(stage, Stage)
        line = self._milestones.reached(trainer.global_step, stage.shown)
        if line is not None:
            _log.info(line)
