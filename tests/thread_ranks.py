"""Fits shared out among threads, which exchange tensors as processes do: what each computes, without starting any."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kg4d import pipeline
from kg4d.config.schema import ExperimentConfig
from kg4d.runs.build import RunInputs, build_run, build_run_representation
from kg4d.runs.costs import Costs
from kg4d.runs.folder import RunFolder
from kg4d.stages.base import Stage
from kg4d.stages.runner import StageData, StageRecord
from kg4d.tracking.tracker import Tracker
from kg4d.utils.ranks import ALONE, Ranks

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Where threads put what they tell one another."""

    barrier: threading.Barrier
    things: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """The ranks of a fit, each of them a thread of this process."""

    table: Table = field(default_factory=lambda: Table(threading.Barrier(1)))

    def _exchanged(self, thing: Any) -> list[Any]:
        self.table.things[self.rank] = thing
        self.table.barrier.wait()
        everything = [self.table.things[rank] for rank in range(self.count)]
        self.table.barrier.wait()
        return everything

    def total(self, values: Tensor) -> Tensor:
        given = self._exchanged(values.detach().clone())
        assert len({value.shape for value in given}) == 1
        return torch.stack(given).sum(0)

    def told(self, thing: T) -> T:
        first: T = self._exchanged(thing)[0]
        return first

    def equalise(self, module: nn.Module) -> None:
        """They began with the same."""


def fitted(config: ExperimentConfig, count: int, folder: Path, nudged: bool = False) -> list[list[dict[str, Tensor]]]:
    """The weights after each stage, as each of `count` threads has them in the end.

    Nudged, the first Gaussians lie one step of their floating-point numbers aside: what rounding alone makes of a fit.
    """
    inputs = build_run(config)
    if nudged:
        means = inputs.gaussians.means.data
        means.copy_(torch.nextafter(means, torch.full_like(means, torch.inf)))
    table = Table(threading.Barrier(count))
    every = [ThreadRanks(rank, count, table) for rank in range(count)] if count > 1 else [ALONE]

    def work(ranks: Ranks) -> list[dict[str, Tensor]]:
        try:
            return _stages(_own(inputs), ranks, folder)
        except BaseException:
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, every))


def _own(inputs: RunInputs) -> RunInputs:
    names = ("gaussians", "static_data", "dynamic_data", "refine_data")
    return replace(inputs, **{name: copy.deepcopy(getattr(inputs, name)) for name in names})


def _stages(run: RunInputs, ranks: Ranks, folder: Path) -> list[dict[str, Tensor]]:
    desk = pipeline.Desk(RunFolder(folder), Tracker.silent(folder), Costs(), ranks)
    weights: list[dict[str, Tensor]] = []
    desk.costs.stages = _Weights(weights)
    pipeline.fit_static(run, desk)
    representation = build_run_representation(run.config, run.gaussians)
    pipeline.fit_motion(run, desk, representation)
    pipeline.fit_colours(run, desk, representation)
    return weights


class _Weights(dict[str, StageRecord]):
    """Keeps the weights of a stage in the place of what it has cost."""

    def __init__(self, weights: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self._weights = weights

    def __setitem__(self, name: str, record: Any) -> None:
        self._weights.append(record)


def run_stage(stage: Stage[Any], data: StageData, *, ranks: Ranks, **_: Any) -> dict[str, Tensor]:
    """In the place of the one with a Trainer: the steps alone."""
    stage.ranks = ranks
    data.dataset.share_out(ranks)
    stage.begin()
    optimizer = stage.configure_optimizers()
    for step in range(stage.steps):
        stage._log_terms(step, stage.take_step(data.dataset.batch(step), optimizer))
    stage.requires_grad_(False)
    return {name: value.clone() for name, value in stage.state_dict().items()} | {
        "shown": torch.tensor(list(stage.shown.values()))
    }
