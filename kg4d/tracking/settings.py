"""Settings of `kg4d.tracking`: plain data that is checked before torch is loaded."""

from dataclasses import dataclass, field
from enum import StrEnum


class WandbMode(StrEnum):
    """Where W&B runs are written."""

    OFFLINE = "offline"  # into the run folder; `wandb sync` uploads them later
    ONLINE = "online"  # to the server; needs a login
    DISABLED = "disabled"  # nowhere


@dataclass
class WandbConfig:
    """Settings of Weights & Biases.

    Attributes:
        mode: Where runs are written.
        project: Project of the runs.
        entity: User or team; that of the login when null.
        tags: Tags of the runs.
        job_type: What the runs are part of: `fit`, or `trial` of a sweep.
    """

    mode: WandbMode = WandbMode.OFFLINE
    project: str = "kg4d"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    job_type: str = "fit"


@dataclass
class TrackingConfig:
    """Where the history of a run is logged, besides `metrics.csv`.

    Attributes:
        wandb: Weights & Biases.
    """

    wandb: WandbConfig = field(default_factory=WandbConfig)
