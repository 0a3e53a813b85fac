"""Logging to Weights & Biases, the only module that uses it, and to `metrics.csv`.

Steps are counted over all stages: step 0 of a stage follows the last step of the stage before it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kg4d.errors import InputError
from kg4d.tracking.history import History
from kg4d.tracking.settings import TrackingConfig, WandbConfig, WandbMode
from kg4d.tracking.tables import AblationTable
from kg4d.utils.plain import plain

if TYPE_CHECKING:
    import wandb

_ONLINE_TIMEOUT = 30.0  # seconds to wait for the server


@runtime_checkable  # for the tests, which check arguments at run time
class Experiment(Protocol):
    """What the tracker needs of an experiment's configuration, a dataclass that is recorded as a whole."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: str
    tracking: TrackingConfig


class Tracker:
    """Logs one run: scalars to `metrics.csv` and W&B; images, videos and tables to W&B only.

    W&B needs steps in order, but a preview may be rendered before the metrics of the same step are there. So values of
    a step are held back until a later step is logged.

    Args:
        config: Where to log.
        folder: The run folder, for `metrics.csv`, which is continued if it exists, and for the folder `wandb`.
        group: Name of the experiment, by which W&B groups its runs.
        name: Name of the run within the experiment.
        settings: Configuration to record.
        run_id: Id of an earlier W&B run to continue; None starts a new one.

    Raises:
        InputError: W&B is online, and the server cannot be reached or refuses the login.
    """

    def __init__(
        self,
        config: TrackingConfig,
        folder: Path,
        group: str,
        name: str,
        settings: Mapping[str, Any],
        run_id: str | None = None,
    ) -> None:
        self._history = History(folder / "metrics.csv")
        self._run = None
        if config.wandb.mode != WandbMode.DISABLED:
            self._run = _start(config.wandb, folder, group, name, settings, run_id)
        self._stage = ""
        self._waiting: dict[int, dict[str, Any]] = {}
        self._latest = 0

    @classmethod
    def of(cls, config: Experiment, folder: Path, about: Mapping[str, Any]) -> "Tracker":
        """The tracker of a run, named like its folder (scene, variant and seed); logs in the folder are continued.

        Args:
            config: Of the run.
            folder: Of the run.
            about: What else to record with the configuration.
        """
        earlier = next(folder.glob("wandb/*run-*/run-*.wandb"), None)
        run_id = None if earlier is None else earlier.stem.removeprefix("run-")
        above = next((path for path in folder.parents if path.name == config.name), folder.parents[1])
        name = folder.relative_to(above).as_posix()
        return cls(config.tracking, folder, config.name, name, {**plain(config), **about}, run_id)

    @classmethod
    def silent(cls, folder: Path) -> "Tracker":
        """One that writes nothing as long as nobody logs: what the other processes of a fit have."""
        return cls(TrackingConfig(WandbConfig(WandbMode.DISABLED)), folder, "", "", {})

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def begin(self, stage: str) -> None:
        """Set the stage that runs now; steps of `image` are steps of this stage."""
        self._stage = stage

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Log scalars as `<stage>/<name>`; the values of one step may come in several calls.

        Args:
            stage: Name of the stage.
            step: Step of the stage, from 0.
            values: Numbers by name.

        Raises:
            ValueError: The step lies before the last one logged.
        """
        self.begin(stage)
        named = {f"{stage}/{name}": float(value) for name, value in values.items()}
        global_step = self._history.add(stage, step, named)
        self._send(before=global_step)
        self._put(global_step, named)

    def image(self, name: str, image: Float[Tensor, "H W 3"] | UInt8[Tensor, "H W 3"], step: int) -> None:
        """Log an image.

        Args:
            name: Name of the image in W&B.
            image: RGB, floats in [0, 1] or 8-bit.
            step: Step of the stage that runs now.
        """
        if self._run is not None:
            import wandb

            pixels = (image.detach().clamp(0, 1) * 255).round().byte() if image.is_floating_point() else image
            self._show(self._stage, step, {name: wandb.Image(pixels.cpu().numpy())})

    @property
    def is_shown(self) -> bool:
        """Whether W&B gets anything: what is for it alone need not be made otherwise."""
        return self._run is not None

    def watch(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Log scalars as `<stage>/<name>` to W&B alone: what two runs of one seed do not share, or cannot go on with.

        Args:
            stage: Name of the stage.
            step: Step of the stage, from 0.
            values: Numbers by name.
        """
        if self._run is not None:
            self._show(stage, step, {f"{stage}/{name}": float(value) for name, value in values.items()})

    def histogram(self, name: str, values: Float[Tensor, " N"], step: int) -> None:
        """Log how values are spread.

        Args:
            name: Name in W&B.
            values: Finite numbers.
            step: Step of the stage that runs now.
        """
        if self._run is not None:
            import wandb

            self._show(
                self._stage,
                step,
                {name: wandb.Histogram(np_histogram=np.histogram(values.detach().cpu().numpy(), bins=64))},
            )

    def points(self, name: str, positions: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"]) -> None:
        """Log a cloud of points at the latest step.

        Args:
            name: Name in W&B.
            positions: World units.
            colors: RGB; clipped to [0, 1].
        """
        if self._run is not None:
            import wandb

            cloud = torch.cat([positions.detach(), (colors.detach().clamp(0, 1) * 255).round()], dim=-1)
            self._put(self._latest, {name: wandb.Object3D(cloud.cpu().numpy())})

    def video(self, name: str, path: Path, step: int | None = None) -> None:
        """Log an MP4 file, which stays where it is until the values of its step are sent.

        Args:
            name: Name in W&B.
            path: The file.
            step: Step of the stage that runs now; the latest one when None.
        """
        if self._run is not None:
            import wandb

            video = {name: wandb.Video(str(path), format="mp4")}
            if step is None:
                self._put(self._latest, video)
            else:
                self._show(self._stage, step, video)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table at the latest step."""
        if self._run is not None:
            import wandb

            self._put(self._latest, {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def final(self, values: Mapping[str, float]) -> None:
        """Set the run's final values, by which W&B compares runs, and log them at the latest step for its charts."""
        if self._run is not None:
            self._put(self._latest, values)
            self._run.summary.update(dict(values))

    def save(self) -> None:
        """Write the history so far to disk; its last row can still grow."""
        self._history.save()

    def flush(self) -> None:
        """Write the values that are held back."""
        self._history.flush()
        self._send()

    def close(self, failed: bool = False) -> None:
        """Write the values that are held back, and end the W&B run."""
        self.flush()
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None

    def _show(self, stage: str, step: int, media: Mapping[str, Any]) -> None:
        """What goes with a step of a stage, which may not have been logged yet."""
        global_step = max(self._latest, self._history.step_of(stage, step))
        self._waiting.setdefault(global_step, {}).update(media)

    def _put(self, global_step: int, values: Mapping[str, Any]) -> None:
        self._waiting.setdefault(global_step, {}).update(values)
        self._latest = max(self._latest, global_step)

    def _send(self, before: int | None = None) -> None:
        """Send the values that are held back to W&B: those of steps below `before`, or all when None."""
        for global_step in sorted(step for step in self._waiting if before is None or step < before):
            values = self._waiting.pop(global_step)
            self._latest = max(self._latest, global_step)
            if self._run is not None:
                self._run.log(values, step=global_step)


def _start(
    config: WandbConfig, folder: Path, group: str, name: str, settings: Mapping[str, Any], run_id: str | None
) -> "wandb.sdk.wandb_run.Run":
    """Start a W&B run that prints nothing and records nothing about the machine, which `run.json` does."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            mode=config.mode.value,
            project=config.project,
            entity=config.entity,
            group=group,
            job_type=config.job_type,
            name=name,
            tags=config.tags,
            config=dict(settings),
            dir=folder,
            id=run_id,
            resume="allow" if run_id and config.mode == WandbMode.ONLINE else None,  # offline, `wandb sync` joins them
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                save_code=False,
                init_timeout=_ONLINE_TIMEOUT,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
    except wandb.Error as error:
        remedy = "run `wandb login`, check the network, or choose offline"
        raise InputError("tracking.wandb.mode", f"W&B does not accept the run: {error}", remedy) from error


def log_table(config: TrackingConfig, folder: Path, experiment: str, table: AblationTable) -> None:
    """Log the comparison of an experiment's variants to W&B, as a separate run in the experiment's group.

    The agent of a sweep says with which id its next run starts: that of the fit. A table would take the same one, so
    there is none.

    Args:
        config: Where to log.
        folder: For `metrics.csv` and the folder `wandb` of this run.
        experiment: Name of the experiment.
        table: The comparison.
    """
    if "WANDB_SWEEP_ID" in os.environ:
        return
    config = replace(config, wandb=replace(config.wandb, job_type="table"))
    with Tracker(config, folder, experiment, "table", {}) as tracker:
        tracker.table("table", table.columns, table.rows)
