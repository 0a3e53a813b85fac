"""The folder of one run: where its files lie, what is recorded of it, and how it is read back."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kg4d.config.load import load_config, to_yaml
from kg4d.config.schema import ExperimentConfig
from kg4d.data.normalisation import Normalisation
from kg4d.errors import InputError
from kg4d.utils.files import replacing


def variant_of(config: ExperimentConfig) -> str:
    """Name of the one variant that a run's configuration holds; `full` where the experiment names none."""
    return next(iter(config.variants), "full")


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @classmethod
    def of(cls, config: ExperimentConfig) -> "RunFolder":
        """The folder of the run that `config` describes."""
        return cls.at(config.output, config.name, variant_of(config), config.seed)

    @classmethod
    def at(cls, output: str | Path, name: str, variant: str, seed: int) -> "RunFolder":
        """The folder of one run of an experiment.

        Args:
            output: Folder of all experiments.
            name: Of the experiment.
            variant: Name of the variant.
            seed: Of the run.
        """
        return cls(Path(output) / name / variant / f"seed{seed}")

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def normalisation(self) -> Path:
        """Where the fit's axes, origin and units lie in the world of its scene."""
        return self.path / "normalisation.json"

    @property
    def record(self) -> Path:
        """What the run was made with and what it cost."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """What it reached. The fit writes it last: a run that has it beside its record is done."""
        return self.path / "metrics.json"

    @property
    def checkpoints(self) -> Path:
        """One file a stage, and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def previews(self) -> Path:
        """Pictures made while it ran."""
        return self.path / "previews"

    @property
    def export(self) -> Path:
        """Files for other programs."""
        return self.path / "export"

    @property
    def log(self) -> Path:
        """All log lines, with tracebacks."""
        return self.path / "log.txt"

    def holds_run_of(self, config: ExperimentConfig) -> bool:
        """Whether a run was begun here, to be resumed or read.

        Raises:
            InputError: It was, with another configuration.
        """
        if not self.config.exists():
            return False
        if not self.matches(config):
            raise InputError(
                self.config, "differs from the configuration given", "resume with the same one, or start anew"
            )
        return True

    def matches(self, config: ExperimentConfig) -> bool:
        """Whether the run here is one of exactly this configuration."""
        return self.config.is_file() and to_yaml(self.read_config()) == to_yaml(config)

    def begin(self, config: ExperimentConfig) -> None:
        """Make the folder ready: an earlier run's results go, its log stays and is continued."""
        for name in (
            "metrics.json",
            "run.json",
            "metrics.csv",
            self.normalisation.name,
        ):  # first what says that the run is done
            (self.path / name).unlink(missing_ok=True)
        for old in (self.checkpoints, self.previews, self.export, self.path / "wandb"):
            shutil.rmtree(old, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.config) as part:
            part.write_text(to_yaml(config), encoding="utf-8")

    def read_config(self) -> ExperimentConfig:
        """The configuration of the run.

        Raises:
            InputError: This is not a run folder.
        """
        if not self.config.is_file():
            raise InputError(
                self.path, "is not a run folder: it has no config.yaml", "give a folder that kg4d.fit made"
            )
        return load_config(ExperimentConfig, self.config)

    def read_normalisation(self) -> Normalisation | None:
        """From the world of the run's scene to its fit; None where no stage has begun.

        Earlier versions worked in the world's axes and units and wrote nothing.
        """
        if self.normalisation.is_file():
            return Normalisation.from_state(json.loads(self.normalisation.read_text(encoding="utf-8")))
        return Normalisation.none() if any(self.checkpoints.glob("*.ckpt")) else None

    def write_normalisation(self, normalisation: Normalisation) -> None:
        """Write `normalisation.json`, without which the weights in the checkpoints have no meaning."""
        with replacing(self.normalisation) as part:
            part.write_text(json.dumps(normalisation.state(), indent=2) + "\n", encoding="utf-8")

    def read_metrics(self) -> dict[str, Any] | None:
        """What `metrics.json` holds; None where the run is not done."""
        if not self.metrics.is_file():
            return None
        table: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        return table

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json`, whole or not at all."""
        with replacing(self.record) as part:
            part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
