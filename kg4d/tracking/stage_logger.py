"""What a stage logs, passed on to the tracker of its run. Apart, because it alone loads Lightning."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from kg4d.tracking.tracker import Tracker


class StageLogger(Logger):
    """Lightning's logger of one stage: passes what is logged to a tracker.

    Args:
        tracker: Receives the values, on the first process only.
        stage: Name of the stage.
    """

    def __init__(self, tracker: Tracker, stage: str) -> None:
        super().__init__()
        self._tracker = tracker
        self._stage = stage
        tracker.begin(stage)

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self._stage

    @property
    def version(self) -> str:
        """Empty: Lightning needs a version, but runs are distinguished by their folders."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Forward the values of a step; Lightning's epoch count means nothing here."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        if values:
            self._tracker.log(self._stage, step or 0, values)

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: the tracker has recorded the whole configuration."""

    @rank_zero_only
    def save(self) -> None:
        """Write all rows so far to disk."""
        self._tracker.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all rows of the stage to disk, however it ended."""
        self._tracker.flush()
