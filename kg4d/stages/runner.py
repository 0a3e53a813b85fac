"""Run one stage under a Lightning Trainer, from its start, from its last checkpoint, or not at all if it is done."""

import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

import kg4d
from kg4d.data.batches.dynamic import DynamicDataModule
from kg4d.data.batches.refine import RefineDataModule
from kg4d.data.batches.static import StaticDataModule
from kg4d.stages.base import Stage
from kg4d.stages.callbacks import CleanStop, LastCheckpoint, StageBar, StageLines, save_checkpoint
from kg4d.stages.checkpoints import read_checkpoint
from kg4d.stages.settings import TrainerConfig
from kg4d.utils.files import replacing
from kg4d.utils.interrupts import Interrupted
from kg4d.utils.logs import is_watched
from kg4d.utils.ranks import ALONE, Ranks

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage cost.

    Attributes:
        steps: Optimiser steps.
        renders: Images drawn.
        seconds: Wall seconds: `total`, and where they went.
    """

    steps: int
    renders: int
    seconds: dict[str, float]


StageData = StaticDataModule | DynamicDataModule | RefineDataModule


def run_stage(
    stage: Stage[Any],
    data: StageData,
    *,
    folder: Path,
    config: TrainerConfig,
    run: str = "",
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
    ranks: Ranks = ALONE,
    saved: Callable[[], None] = lambda: None,
) -> StageRecord:
    """Run a stage to its end and write `<folder>/<name>.ckpt`, which `<folder>/last.ckpt` then equals.

    A finished stage is only loaded; one that was cut short goes on from `<folder>/last.ckpt`.

    Args:
        stage: The module; holds the fitted parameters afterwards.
        data: Gives its batches; told from which step on.
        folder: Of the checkpoints.
        config: Of the Trainer.
        run: Hash of the configuration that checkpoints belong to; those of another run are refused.
        logger: Gets the logged terms.
        callbacks: What else happens around the steps, such as previews; checkpoints and a clean stop always do.
        ranks: The processes that take the steps together; all of them call this.
        saved: Called after each checkpoint but that of a stop.

    Raises:
        InputError: A checkpoint is damaged or belongs to another run.
        Interrupted: A signal came; `last.ckpt` holds the state.
    """
    name, stage.run, stage.ranks = stage.name, run, ranks
    final, last = folder / f"{name}.ckpt", folder / "last.ckpt"
    if final.exists():
        _log.info("%s: already done, loaded from %s", name, final)
        return _load(stage, final, run)
    begun = read_checkpoint(last, run=run) if last.exists() else None
    start = last if begun is not None and begun["kg4d"]["stage"] == name else None
    first_step = 0 if start is None or begun is None else int(begun["global_step"])
    if start is not None:
        _log.info("%s: going on from step %d of %d", name, first_step, stage.steps)
    stage.clock.begin_total()
    stop = CleanStop(last)
    around: list[Callback] = [stop, LastCheckpoint(last, config.checkpoint_every, saved), *callbacks]
    if config.progress_bar and ranks.first:
        around.append(StageBar(name) if is_watched() else StageLines())
    with warnings.catch_warnings():
        _silence_lightning()
        trainer = _trainer(stage, config, logger, around, folder)
        data.dataset.first_step = first_step
        data.dataset.move(stage.renderer.device)
        data.dataset.share_out(ranks)
        ranks.equalise(stage)
        trainer.fit(stage, datamodule=data, ckpt_path=start, weights_only=True)
    data.dataset.share_out(ALONE)
    data.dataset.move(torch.device("cpu"))
    if trainer.global_step >= stage.steps and ranks.first:
        save_checkpoint(trainer, final)
        with replacing(last) as part:
            shutil.copyfile(final, part)
        saved()
    ranks.wait()
    if stop.received is not None:
        raise Interrupted(stop.received, f"{name}: stopped at step {trainer.global_step} of {stage.steps}")
    return _record(stage)


def has_begun(name: str, folder: Path, run: str = "") -> bool:
    """Whether a checkpoint of that stage lies in `folder`, from which `run_stage` would go on.

    Raises:
        InputError: The last checkpoint is damaged or belongs to another run.
    """
    last = folder / "last.ckpt"
    begun = last.exists() and bool(read_checkpoint(last, run=run)["kg4d"]["stage"] == name)
    return begun or (folder / f"{name}.ckpt").exists()


def _trainer(
    stage: Stage[Any], config: TrainerConfig, logger: Logger | None, callbacks: list[Callback], folder: Path
) -> lightning.Trainer:
    device = stage.renderer.device
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index] if device.type == "cuda" else 1,
        plugins=[LightningEnvironment()],  # the processes find one another without Lightning
        max_steps=stage.steps,
        max_epochs=-1,
        logger=logger if logger is not None else False,
        callbacks=callbacks,
        log_every_n_steps=stage.steps + 1,  # the stages log themselves
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=config.progress_bar and stage.ranks.first and is_watched(),
        default_root_dir=folder,
    )


def _silence_lightning() -> None:
    """Leave out what says nothing about this fit: which accelerators there are, and advice on workers of loaders."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    for logger in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(logger).setLevel(logging.WARNING)


def _load(stage: Stage[Any], path: Path, run: str) -> StageRecord:
    checkpoint = read_checkpoint(path, run=run)
    version = checkpoint["kg4d"].get("version")
    if version is not None and version != kg4d.__version__:
        _log.warning("%s was fitted by kg4d %s; this is %s", path, version, kg4d.__version__)
    stage.load_state_dict(checkpoint["state_dict"])
    stage.on_load_checkpoint(checkpoint)
    return _record(stage)


def _record(stage: Stage[Any]) -> StageRecord:
    seconds = {name: round(value, 3) for name, value in stage.clock.snapshot().items()}
    return StageRecord(steps=stage.steps, renders=stage.renders, seconds=seconds)
