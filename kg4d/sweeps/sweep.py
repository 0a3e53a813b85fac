"""One call of `kg4d.sweep`: which fits it asks for, where they run, and how they compare."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from kg4d.config.load import Run, expand, load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.runs.folder import experiment_folder
from kg4d.runs.results import compare, gather
from kg4d.sweeps.board import Progress
from kg4d.sweeps.cards import places_on_cards, places_on_cores
from kg4d.sweeps.engine import Engine
from kg4d.sweeps.jobs import listing
from kg4d.sweeps.local import LocalEngine
from kg4d.sweeps.pareto import reached, write_pareto
from kg4d.sweeps.points import Points, points_of
from kg4d.sweeps.runner import Fixed, Source, carry_out, raise_failures
from kg4d.sweeps.settings import EngineKind, SweepConfig
from kg4d.sweeps.sources import known_to_wandb, unfinished, with_held_out_frames

_EXTRA = 'pip install "kg4d[sweep]"'


@dataclass(frozen=True)
class Places:
    """Where the fits of a sweep may run on this machine.

    Attributes:
        jobs: Fits at a time; None leaves it to the engine.
        gpus: Numbers of GPUs, or None.
        per_gpu: Fits at a time on each GPU.
    """

    jobs: int | None = None
    gpus: list[int] | None = None
    per_gpu: int = 1


class Sweep:
    """One call of this command."""

    def __init__(self, file: str, words: Sequence[str], places: Places) -> None:
        """Read the points of a sweep.

        Args:
            file: Experiment file with a block `sweep`.
            words: Overrides of the command line.
            places: Where fits may run.

        Raises:
            InputError: The file asks for no sweep, or for one that cannot be.
        """
        config = load_config(SweepConfig, file, words)
        settings = config.sweep
        if settings is None:
            raise InputError(f"{file}: sweep", "is missing", "write a block `sweep:`; see docs/scale.md")
        if config.variants:
            raise InputError(f"{file}: variants", "a sweep makes its own", "list them as sweep.points")
        given = {word.partition("=")[0].strip() for word in words}
        for key in settings.parameters:
            if key in given:
                raise InputError(f"command line: {key}", "is what the sweep sets", "leave it away")
        self._file, self._words, self._places = file, words, places
        self._settings, self._points = settings, points_of(settings)

    def runs_of(self, points: Points) -> list[Run[ExperimentConfig]]:
        """Of some points the runs with every scene and seed."""
        words = [word for word in self._words if not word.startswith("sweep.")]
        runs = expand(ExperimentConfig, self._file, words, variants=points, without="sweep")
        return known_to_wandb(runs, "trial")

    @cached_property
    def _listed(self) -> list[Run[ExperimentConfig]]:
        """Of the points that are known beforehand."""
        return self.runs_of(self._points)

    def listing(self) -> list[str]:
        """What would be run, a line each."""
        if self._points:
            return listing(self._listed)
        each = len(self.runs_of({"first": []}))
        return [f"{self._settings.trials} points that {self._settings.method} proposes, each fitted {each} times"]

    def carry_out(self, say: Callable[[str], None]) -> None:
        """Do what is left to do, then compare.

        Args:
            say: Takes the lines that tell a person what the sweep has found.
        """
        source, total = self._source()  # from here on the request is known to be right
        with self._engine(total) as engine, Progress(total).shown() as progress:
            outcomes = carry_out(source, engine, progress, self._settings.retries)
        for line in self._compare():
            say(line)
        raise_failures(outcomes)

    def _source(self) -> tuple[Source, int | None]:
        settings = self._settings
        before: Callable[[ExperimentConfig], None] | None = None
        if settings.share_stages:
            from kg4d.sweeps.sharing import share_in_experiment  # here, because it loads torch

            before = share_in_experiment
        if not settings.searches:
            jobs = unfinished(self._listed, before)
            return Fixed(iter(jobs)), len(jobs)
        try:
            from kg4d.sweeps.search import Search, Searched
        except ImportError as error:
            raise InputError("sweep.method", f"needs optuna: {error}", _EXTRA) from error
        runs = self.runs_of(self._points or {"first": []})
        with_held_out_frames(runs)
        self._search = Search(settings, self._points, experiment_folder(runs[0].config) / "search.log")
        reports = settings.reports if settings.early_stopping else 0
        return Searched(self._search, self.runs_of, reports, before), None

    def _engine(self, total: int | None) -> Engine:
        places, settings = self._places, self._settings
        if settings.engine is EngineKind.RAY:
            if places.gpus is not None:
                raise InputError("--gpus", "Ray places fits by itself", "set sweep.gpus_per_run")
            try:
                from kg4d.sweeps.on_ray import RayEngine
            except ImportError as error:
                raise InputError("sweep.engine", f"needs ray: {error}", _EXTRA) from error
            return RayEngine(settings, places.jobs)
        if places.gpus is None:
            jobs = places.jobs or 1
            return LocalEngine(places_on_cores(jobs if total is None else min(jobs, max(1, total))))
        if settings.gpus_per_run != int(settings.gpus_per_run):
            raise InputError("sweep.gpus_per_run", "a part of a GPU is for Ray", "set --per-gpu")
        each = int(settings.gpus_per_run)
        found = places_on_cards(places.gpus, places.per_gpu, each, settings.gpu_gigabytes)
        return LocalEngine(found[: places.jobs])

    def _begun(self) -> list[Run[ExperimentConfig]]:
        """What there may be results of: all that is listed, or what a search has proposed."""
        if not self._settings.searches:
            return self._listed
        points = self._search.settings_by_name()
        return self.runs_of(points) if points else []

    def _compare(self) -> Iterator[str]:
        """Tables, and the picture of quality and costs, of all points that have been begun."""
        runs = self._begun()
        results = gather(runs)
        if not results:
            return
        compare(results, runs[0].config)
        if self._settings.searches:
            points = self._search.settings_by_name()
            for name, state, value in self._search.decisions():
                words = " ".join(points[name])
                yield f"{name}  {state}  {'' if value is None else f'heldout/psnr {value:.3f}'}  {words}"
        for path in write_pareto(experiment_folder(runs[0].config), *reached(runs)):
            yield f"{path.stem:8} {path}"
