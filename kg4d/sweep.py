"""`python -m kg4d.sweep --config F`: many fits side by side, on this machine or on Ray."""

import argparse
import sys
from typing import TYPE_CHECKING

from kg4d.errors import InputError
from kg4d.utils.cli import Parser, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kg4d.config.load import Run
    from kg4d.config.schema import ExperimentConfig
    from kg4d.sweeps.engine import Engine
    from kg4d.sweeps.points import Points
    from kg4d.sweeps.runner import Source
    from kg4d.sweeps.settings import SweepSettings

_EXTRA = 'pip install "kg4d[sweep]"'


def main(arguments: argparse.Namespace) -> None:
    """Fit every point of a sweep with every scene and seed, as far as that is not done, then compare them."""
    from kg4d.config.load import load_config  # here, so that --help and a wrong command line take no time
    from kg4d.sweeps.points import points_of
    from kg4d.sweeps.settings import SweepConfig

    config = load_config(SweepConfig, arguments.config, arguments.overrides)
    settings = config.sweep
    if settings is None:
        raise InputError(f"{arguments.config}: sweep", "is missing", "write a block `sweep:`; see docs/scale.md")
    if config.variants:
        raise InputError(f"{arguments.config}: variants", "a sweep makes its own", "list them as sweep.points")
    _check_overrides(settings, arguments.overrides)
    sweep = _Sweep(arguments, settings, points_of(settings))
    if arguments.list:
        sweep.show_list()
        return
    sweep.carry_out()


def _check_overrides(settings: "SweepSettings", overrides: "Sequence[str]") -> None:
    given = {word.partition("=")[0].strip() for word in overrides}
    for key in settings.parameters:
        if key in given:
            raise InputError(f"command line: {key}", "is what the sweep sets", "leave it away")


class _Sweep:
    """One call of this command."""

    def __init__(self, arguments: argparse.Namespace, settings: "SweepSettings", points: "Points") -> None:
        self._arguments, self._settings, self._points = arguments, settings, points

    def runs_of(self, points: "Points") -> "list[Run[ExperimentConfig]]":
        """Of some points the runs with every scene and seed."""
        from kg4d.config.load import expand
        from kg4d.config.schema import ExperimentConfig
        from kg4d.sweeps.sources import known_to_wandb

        words = [word for word in self._arguments.overrides if not word.startswith("sweep.")]
        runs = expand(ExperimentConfig, self._arguments.config, words, variants=points, without="sweep")
        return known_to_wandb(runs, "trial")

    def show_list(self) -> None:
        """Say what would be run."""
        from kg4d.sweeps.jobs import listing

        if self._points:
            print(*listing(self.runs_of(self._points)), sep="\n")
        else:
            each = len(self.runs_of({"first": []}))
            print(f"{self._settings.trials} points that {self._settings.method} proposes, each fitted {each} times")

    def carry_out(self) -> None:
        """Do what is left to do, then compare."""
        from kg4d.sweeps.board import Progress
        from kg4d.sweeps.runner import carry_out, raise_failures

        source, total = self._source()
        with self._engine(total) as engine, Progress(total).shown() as progress:
            outcomes = carry_out(source, engine, progress, self._settings.retries)
        self._compare()
        raise_failures(outcomes)

    def _source(self) -> "tuple[Source, int | None]":
        from kg4d.runs.folder import experiment_folder
        from kg4d.sweeps.runner import Fixed
        from kg4d.sweeps.sharing import share_in_experiment
        from kg4d.sweeps.sources import unfinished, with_held_out_frames

        settings, before = self._settings, share_in_experiment if self._settings.share_stages else None
        if not settings.searches:
            jobs = unfinished(self.runs_of(self._points), before)
            return Fixed(iter(jobs)), len(jobs)
        try:
            from kg4d.sweeps.search import Search
            from kg4d.sweeps.searched import Searched
        except ImportError as error:
            raise InputError("sweep.method", f"needs optuna: {error}", _EXTRA) from error
        runs = self.runs_of(self._points or {"first": []})
        with_held_out_frames(runs)
        self._search = Search(settings, self._points, experiment_folder(runs[0].config) / "search.log")
        reports = settings.reports if settings.early_stopping else 0
        return Searched(self._search, self.runs_of, reports, before), None

    def _engine(self, total: int | None) -> "Engine":
        from kg4d.sweeps.settings import EngineKind

        arguments, settings = self._arguments, self._settings
        if settings.engine is EngineKind.RAY:
            if arguments.gpus is not None:
                raise InputError("--gpus", "Ray places fits by itself", "set sweep.gpus_per_run")
            try:
                from kg4d.sweeps.on_ray import RayEngine
            except ImportError as error:
                raise InputError("sweep.engine", f"needs ray: {error}", _EXTRA) from error
            return RayEngine(settings, arguments.jobs)
        from kg4d.sweeps.cards import places_on_cards, places_on_cores
        from kg4d.sweeps.local import LocalEngine

        if arguments.gpus is None:
            jobs = arguments.jobs or 1
            return LocalEngine(places_on_cores(jobs if total is None else min(jobs, max(1, total))))
        if settings.gpus_per_run != int(settings.gpus_per_run):
            raise InputError("sweep.gpus_per_run", "a part of a GPU is for Ray", "set --per-gpu")
        each = int(settings.gpus_per_run)
        places = places_on_cards(arguments.gpus, arguments.per_gpu, each, settings.gpu_gigabytes)
        return LocalEngine(places[: arguments.jobs])

    def _compare(self) -> None:
        """Tables, and the picture of quality and costs, of all points that have been begun."""
        from kg4d.runs.folder import experiment_folder
        from kg4d.runs.results import compare, gather
        from kg4d.sweeps.pareto import reached, write_pareto

        points = self._search.settings_by_name() if self._settings.searches else self._points
        runs = self.runs_of(points) if points else []
        results = gather(runs)
        if not results:
            return
        compare(results, runs[0].config)
        if self._settings.searches:
            for name, state, value in self._search.decisions():
                words = " ".join(points[name])
                print(f"{name}  {state}  {'' if value is None else f'heldout/psnr {value:.3f}'}  {words}")
        for path in write_pareto(experiment_folder(runs[0].config), *reached(runs)):
            print(f"{path.stem:8} {path}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError("--gpus", f"{text!r} are no numbers", "write for example --gpus 0,1") from error


def parser() -> Parser:
    """The options of this command."""
    options = Parser("kg4d.sweep", "Fit the points of a sweep side by side, as far as they are not done; compare them.")
    options.add_argument("--config", required=True, help="experiment file with a block `sweep:` (YAML)")
    options.add_argument("--list", "--dry-run", action="store_true", help="say what would be run, and do nothing")
    options.add_argument("--jobs", type=int, metavar="N", help="fits at a time, which share the cores out")
    options.add_argument("--gpus", type=_numbers, metavar="0,1", help="fit on these GPUs, as nvidia-smi numbers them")
    options.add_argument("--per-gpu", type=int, default=1, metavar="K", help="fits at a time on each GPU")
    options.add_overrides()
    return options


if __name__ == "__main__":
    sys.exit(run(main, parser()))
