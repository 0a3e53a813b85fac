"""The folder of one run: where its files lie, what is recorded of it, and how it is read back."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kg4d.config.load import load_config, to_yaml
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.utils.commands import command
from kg4d.utils.files import cache_folder, replacing, tree_hash
from kg4d.utils.locks import held_alone
from kg4d.utils.names import name_of_scene
from kg4d.utils.object_storage import is_url, place_of
from kg4d.utils.plain import flat, plain
from kg4d.utils.reading import is_finite, is_there, read_json, read_table

if TYPE_CHECKING:
    import kg4d.data.normalisation  # where it is needed, because it loads torch

_log = logging.getLogger(__name__)

# keys that say where a run lies, who watches it and how many processes share it out, and nothing of the fit
_ELSEWHERE = ("output", "scenes", "tracking", "trainer.accelerator", "trainer.devices", "trainer.strategy")
_STAGES = ("static", "dynamic", "refine")
_MARK = "# lines above: "  # the last line of config.yaml


def _whole(settings: str) -> str:
    """The text of config.yaml: its settings, and how many lines they are, by which a lost one is noticed."""
    return f"{settings}{_MARK}{settings.count(chr(10))}\n"


def variant_of(config: ExperimentConfig) -> str:
    """Name of the one variant that a run's configuration holds; `full` where the experiment names none."""
    return next(iter(config.variants), "full")


def local_output(output: str) -> Path:
    """The folder of all experiments on this machine: `output`, or where runs are worked on that are stored at a URL.

    >>> local_output("s3://bucket/runs").relative_to(cache_folder())
    PosixPath('runs/s3/bucket/runs')
    """
    return cache_folder() / "runs" / place_of(output) if is_url(output) else Path(output)


def experiment_folder(config: ExperimentConfig) -> Path:
    """The folder above all runs of an experiment, on this machine."""
    return local_output(config.output) / config.name


def scene_folder(config: ExperimentConfig) -> str:
    """Name of the folder of a run's scene below that; empty where the experiment lists no scenes."""
    return name_of_scene(config.scenes[0]) if config.scenes else ""


def fit_settings(config: ExperimentConfig) -> dict[str, Any]:
    """All settings by their dotted keys, but for those that say where a run lies, who watches and who computes it."""
    settings = flat(plain(config))
    return {key: value for key, value in settings.items() if not {key, key.split(".")[0]}.intersection(_ELSEWHERE)}


def run_hash(config: ExperimentConfig) -> str:
    """What checkpoints of a run are known by: its settings but for defaults, so that a new key changes no old run."""
    defaults = fit_settings(ExperimentConfig())
    return tree_hash({key: value for key, value in fit_settings(config).items() if defaults.get(key) != value})


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @classmethod
    def of(cls, config: ExperimentConfig) -> "RunFolder":
        """The folder of the run that `config` describes."""
        return cls(experiment_folder(config) / scene_folder(config) / variant_of(config) / f"seed{config.seed}")

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

    def alone(self) -> AbstractContextManager[None]:
        """Keep other fits out of this folder while the block runs.

        Raises:
            InputError: A fit goes on here already, or the folder cannot be written to.
        """
        return held_alone(self.path / ".lock", self.path, "wait for it, or give another name= or output=")

    def holds_run_of(self, config: ExperimentConfig) -> bool:
        """Whether a run was begun here, to be resumed or read.

        Raises:
            InputError: It was, with another configuration.
        """
        if not self.config.exists():
            return False
        different = self.differences(config)
        if different:
            keys = ", ".join(different[:5]) + (f" and {len(different) - 5} more" if len(different) > 5 else "")
            remedy = "resume with the same configuration, or replace the run with --overwrite"
            raise InputError(self.config, f"differs from the configuration given in {keys}", remedy)
        return True

    def matches(self, config: ExperimentConfig) -> bool:
        """Whether the run here is one of this configuration, wherever its folder lies and whatever tracks it."""
        return self.config.is_file() and not self.differences(config)

    def differences(self, config: ExperimentConfig) -> list[str]:
        """Dotted keys in which the configuration of the run here differs, but for `output` and `tracking`."""
        if is_there(self.config) and read_table(self.config) == _whole(to_yaml(config)):
            return []  # as a fit with this very configuration wrote it: a third of the time of reading it
        mine, given = fit_settings(self.read_config()), fit_settings(config)
        return [key for key in {**mine, **given} if mine.get(key) != given.get(key)]

    def is_done(self, config: ExperimentConfig) -> bool:
        """Whether everything that a fit with this configuration leaves behind is here.

        Raises:
            InputError: `metrics.json` is damaged.
        """
        stages = all((self.checkpoints / f"{name}.ckpt").is_file() for name in _STAGES)
        exported = not config.export.formats or (self.export.is_dir() and any(self.export.iterdir()))
        return self.read_metrics() is not None and self.record.is_file() and stages and exported

    def check_free(self, config: ExperimentConfig) -> None:
        """See that no finished run would be replaced; say so in the log where an unfinished one will be.

        Raises:
            InputError: A finished run lies here.
        """
        self.check_unfinished()
        begun = [name for name in (*_STAGES, "last") if (self.checkpoints / f"{name}.ckpt").is_file()]
        if begun:
            _log.warning("%s: what an unfinished run left is removed (%s)", self.path, ", ".join(begun))

    def check_unfinished(self) -> None:
        """See that no finished run would be replaced.

        Raises:
            InputError: One lies here.
        """
        if self.metrics.is_file():
            remedy = "keep it with --resume, replace it with --overwrite, or give another name= or output="
            raise InputError(self.path, "holds a finished run", remedy)

    def begin(self, config: ExperimentConfig) -> None:
        """Make the folder ready: an earlier run's results go, its log stays and is continued."""
        self.path.mkdir(parents=True, exist_ok=True)
        for old in (  # first what says that the run is done
            *(self.metrics, self.record, self.path / "metrics.csv", self.normalisation),
            *(self.checkpoints, self.previews, self.export, self.path / "wandb"),
        ):
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        with replacing(self.config) as part:
            part.write_text(_whole(to_yaml(config)), encoding="utf-8")

    def read_config(self) -> ExperimentConfig:
        """The configuration of the run.

        Raises:
            InputError: This is not a run folder.
        """
        if not is_there(self.config):
            raise InputError(
                self.path, "is not a run folder: it has no config.yaml", "give a folder that kg4d.fit made"
            )
        config = load_config(ExperimentConfig, self.config)
        written = read_table(self.config)
        settings = written.rpartition(_MARK)[0]
        whole = written == _whole(settings) if settings else "\nvariants:" in written  # earlier versions had no mark
        if not (written.startswith("name:") and whole):
            raise InputError(self.config, "is damaged: it has not all keys", "restore it, or fit again")
        return config

    def read_normalisation(self) -> "kg4d.data.normalisation.Normalisation | None":
        """From the world of the run's scene to its fit; None where no stage has begun.

        Earlier versions worked in the world's axes and units and wrote nothing.

        Raises:
            InputError: It is damaged, or is gone while a checkpoint of this version is there.
        """
        from kg4d.data.normalisation import Normalisation
        from kg4d.stages.checkpoints import read_checkpoint

        remedy = "restore it, or fit again with --overwrite: the checkpoints have no meaning without it"
        if is_there(self.normalisation):
            try:
                return Normalisation.from_state(read_json(self.normalisation))
            except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
                what = f"is damaged: {type(error).__name__}: {str(error)[:200]}"
                raise InputError(self.normalisation, what, remedy) from error
        checkpoints = list(self.checkpoints.glob("*.ckpt"))
        if checkpoints and read_checkpoint(checkpoints[0])["kg4d"].get("schema", 0) > 0:
            raise InputError(self.normalisation, "is gone", remedy)
        return Normalisation.none() if checkpoints else None

    def write_normalisation(self, normalisation: "kg4d.data.normalisation.Normalisation") -> None:
        """Write `normalisation.json`, without which the weights in the checkpoints have no meaning."""
        with replacing(self.normalisation) as part:
            part.write_text(json.dumps(normalisation.state(), indent=2) + "\n", encoding="utf-8")

    def read_metrics(self) -> dict[str, Any] | None:
        """What `metrics.json` holds; None where the run is not done.

        Raises:
            InputError: It is damaged.
        """
        if not is_there(self.metrics):
            return None
        try:
            table: dict[str, Any] = read_json(self.metrics)
            whole = all(is_finite(value) for value in table["metrics"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise InputError(self.metrics, "is damaged", "remove it; kg4d.fit --resume then measures the run again")
        return table

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json`, whole or not at all."""
        with replacing(self.record) as part:
            part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def for_people(folders: Sequence[RunFolder]) -> Iterator[str]:
    """Lines that say where a person finds what of the runs that are done, and commands that show them."""
    done = [folder.path for folder in folders if folder.metrics.is_file()]
    for path in done:
        yield f"run      {path}"
        for label, name in (("video", "export/video/orbit.mp4"), ("viewer", "export/viewer.html")):
            if (path / name).is_file():
                yield f"{label:8} {path / name}"
        yield f"look     {command('kg4d.view', '--run', str(path))}"
    if len(done) > 1:
        yield f"compare  {command('kg4d.view', '--run', str(done[0]), '--compare', str(done[1]))}"
