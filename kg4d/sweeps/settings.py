"""What a sweep is: which points are tried, and who tries them."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from kg4d.config.schema import ExperimentConfig


class Method(StrEnum):
    """Where points come from."""

    GRID = "grid"  # all combinations of the values
    LIST = "list"  # the points that are written down
    RANDOM = "random"  # drawn independently
    OPTUNA = "optuna"  # a search (tree-structured Parzen estimator) for the best held-out PSNR


class EngineKind(StrEnum):
    """Who does the fits."""

    LOCAL = "local"  # processes of this machine
    RAY = "ray"  # a Ray cluster, or a local Ray


@dataclass
class Parameter:
    """What one key is set to: one of some values, or a number in a range.

    Attributes:
        values: To choose from.
        low: Smallest number.
        high: Largest number.
        log: Draw its logarithm evenly.
        whole: Draw whole numbers.
    """

    SIGNED: ClassVar[tuple[str, ...]] = ("low", "high")

    values: list[Any] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        """Check that it is one of the two.

        Raises:
            ValueError: It is neither, or the range is empty.
        """
        ranged = self.low is not None and self.high is not None
        if bool(self.values) == ranged:
            raise ValueError("sweep.parameters: each needs either values, or low and high")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"sweep.parameters: low must be below high, not {self.low:g} and {self.high:g}")
            if self.log and not self.low > 0:
                raise ValueError(f"sweep.parameters: log needs low above 0, not {self.low:g}")


@dataclass
class SweepSettings:
    """Which points are tried, and who tries them.

    Attributes:
        method: Where points come from.
        parameters: By dotted key of the experiment.
        points: For `list`: the settings of each point.
        trials: For `random` and `optuna`: how many points.
        seed: Of what is drawn.
        early_stopping: Give up points that do worse than others on held-out frames of the reference video
            (asynchronous successive halving).
        reports: How often a fit says how it does, while the motion is fitted.
        retries: How often a fit that fails is tried again.
        engine: Who does the fits.
        address: Of the Ray cluster; a local Ray is started when null.
        gpus_per_run: GPUs of each fit. With `ray` a fraction lets several share one; with `local` that is --per-gpu.
        cpus_per_run: Cores of each fit with `ray`, and threads; with `local` the cores are shared out among the fits.
        gpu_gigabytes: Memory that has to be free on a GPU for each fit there, GiB; `local` looks at the start.
        share_stages: Take over finished stages of other fits of the sweep that come out the same.
    """

    method: Method = Method.GRID
    parameters: dict[str, Parameter] = field(default_factory=dict)
    points: list[list[str]] = field(default_factory=list)
    trials: int = 20
    seed: int = 0
    early_stopping: bool = False
    reports: int = 3
    retries: int = 1
    engine: EngineKind = EngineKind.LOCAL
    address: str | None = None
    gpus_per_run: float = 1.0
    cpus_per_run: int = 1
    gpu_gigabytes: float = 4.0
    share_stages: bool = False

    def __post_init__(self) -> None:
        """Check that the points are there.

        Raises:
            ValueError: What the method needs is missing, or is of no use to it.
        """
        if (self.method is Method.LIST) != bool(self.points) or (self.method is Method.LIST) == bool(self.parameters):
            raise ValueError("sweep: the method list needs points, the others need parameters")
        ranged = [key for key, parameter in self.parameters.items() if not parameter.values]
        if self.method is Method.GRID and ranged:
            raise ValueError(f"sweep.parameters.{ranged[0]}: a grid needs values")
        if self.trials < 1 or self.reports < 1:
            raise ValueError("sweep: trials and reports must be at least 1")
        if self.early_stopping and self.gpus_per_run > 1:
            raise ValueError("sweep.early_stopping: needs fits by one process each, gpus_per_run of at most 1")

    @property
    def searches(self) -> bool:
        """Whether decisions are taken by how fits do on held-out frames."""
        return self.method is Method.OPTUNA or self.early_stopping


@dataclass
class SweepConfig(ExperimentConfig):
    """An experiment file with a sweep.

    Attributes:
        sweep: The sweep.
    """

    sweep: SweepSettings | None = None
