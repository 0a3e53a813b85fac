"""The one door to Weights & Biases, and the history of a run in `metrics.csv`.

Steps are counted over all stages: a stage's step 0 follows the last step of the stage before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from kg4d.errors import InputError
from kg4d.tracking.history import History
from kg4d.tracking.tables import AblationTable
from kg4d.utils.plain import plain

if TYPE_CHECKING:
    import wandb

_ONLINE_TIMEOUT = 30.0  # seconds that the server has to answer


class WandbMode(StrEnum):
    """Where W&B runs go."""

    OFFLINE = "offline"  # into the run folder; `wandb sync` uploads them
    ONLINE = "online"  # to the server; needs a login
    DISABLED = "disabled"  # nowhere


@dataclass
class WandbConfig:
    """Settings of Weights & Biases.

    Attributes:
        mode: Where runs go.
        project: Project they belong to.
        entity: User or team; the login's own where None.
        tags: Labels of the runs.
    """

    mode: WandbMode = WandbMode.OFFLINE
    project: str = "kg4d"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class TrackingConfig:
    """Where the history of a run is kept beside `metrics.csv`.

    Attributes:
        wandb: Weights & Biases.
    """

    wandb: WandbConfig = field(default_factory=WandbConfig)


@runtime_checkable  # for the tests, which check arguments at run time
class Experiment(Protocol):
    """What the tracker asks of an experiment's configuration; it is a dataclass, and all of it is recorded."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: str
    tracking: TrackingConfig


class Tracker:
    """What one run logs: scalars to `metrics.csv`, and these, pictures, videos and tables to W&B.

    W&B wants steps in order, but a preview may be drawn before the metrics of the same step are in; so what is logged
    at a step waits until a later one comes.

    Args:
        config: Where to.
        folder: Holds `metrics.csv`, which is continued if it exists, and the folder `wandb`.
        group: Name of the experiment, under which W&B groups its runs.
        name: Of the run within the experiment.
        settings: Configuration to record.
        run_id: Id of an earlier W&B run that this one continues; a new one when None.

    Raises:
        InputError: W&B is to be online, and the server cannot be reached or refuses the login.
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
    def of(cls, config: Experiment, folder: Path) -> "Tracker":
        """The tracker of a run, named as its folder (variant and seed); what the folder holds of it is continued."""
        earlier = next(folder.glob("wandb/*run-*/run-*.wandb"), None)
        run_id = None if earlier is None else earlier.stem.removeprefix("run-")
        name = f"{folder.parent.name}/{folder.name}"
        return cls(config.tracking, folder, config.name, name, plain(config), run_id)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def begin(self, stage: str) -> None:
        """Say which stage runs now: the pictures that follow belong to it."""
        self._stage = stage

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Log scalars as `<stage>/<name>`; values of one step may come in several calls.

        Args:
            stage: Name of the stage.
            step: Step of the stage, from 0.
            values: Numbers by name.

        Raises:
            ValueError: The step lies before the last one logged.
        """
        self.begin(stage)
        named = {f"{stage}/{name}": float(value) for name, value in values.items()}
        place = self._history.add(stage, step, named)
        self._send(before=place)
        self._put(place, named)

    def image(self, name: str, image: Float[Tensor, "H W 3"] | UInt8[Tensor, "H W 3"], step: int) -> None:
        """Log a picture, RGB, floats in [0, 1] or 8-bit, at a step of the stage that runs now."""
        if self._run is not None:
            import wandb

            pixels = (image.detach().clamp(0, 1) * 255).round().byte() if image.is_floating_point() else image
            place = max(self._latest, self._history.step_of(self._stage, step))
            self._waiting.setdefault(place, {})[name] = wandb.Image(pixels.cpu().numpy())

    def video(self, name: str, path: Path) -> None:
        """Log an MP4 file at the latest step."""
        if self._run is not None:
            import wandb

            self._put(self._latest, {name: wandb.Video(str(path), format="mp4")})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table at the latest step."""
        if self._run is not None:
            import wandb

            self._put(self._latest, {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def summary(self, values: Mapping[str, float]) -> None:
        """Set the run's final values, by which W&B compares runs."""
        if self._run is not None:
            self._run.summary.update(dict(values))

    def flush(self) -> None:
        """Write what waits for a later step."""
        self._history.flush()
        self._send()

    def close(self, failed: bool = False) -> None:
        """Write the rest and end the W&B run."""
        self.flush()
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None

    def _put(self, place: int, values: Mapping[str, Any]) -> None:
        self._waiting.setdefault(place, {}).update(values)
        self._latest = max(self._latest, place)

    def _send(self, before: int | None = None) -> None:
        """Hand W&B what waits, up to the step `before`; all of it when None."""
        for place in sorted(place for place in self._waiting if before is None or place < before):
            values = self._waiting.pop(place)
            self._latest = max(self._latest, place)
            if self._run is not None:
                self._run.log(values, step=place)


def _start(
    config: WandbConfig, folder: Path, group: str, name: str, settings: Mapping[str, Any], run_id: str | None
) -> "wandb.sdk.wandb_run.Run":
    """A W&B run that says nothing on the console and records nothing of the machine; `run.json` has that."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            mode=config.mode.value,
            project=config.project,
            entity=config.entity,
            group=group,
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
    """Log the comparison of an experiment's variants to W&B, as a run of its own in the experiment's group."""
    with Tracker(config, folder, experiment, "table", {}) as tracker:
        tracker.table("table", table.columns, table.rows)


class StageLogger(Logger):
    """Lightning's logger of one stage: what a module logs with `self.log` goes to a tracker.

    Lightning sends the last values again at every step until there are new ones. A module that does not log at every
    step therefore logs `step` among its values: Lightning takes that as their step, so that each is counted once.

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
        """Lightning asks for one; runs are told apart by their folders."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Forward the values of a step; Lightning's epoch count means nothing here."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        if values:
            self._tracker.log(self._stage, step or 0, values)

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The tracker has the whole configuration already."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """A stage's rows are on disk when it ends, however it ends."""
        self._tracker.flush()
