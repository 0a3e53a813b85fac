"""Which runs are compared with which: arms, what they share, and what about them is not comparable."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kg4d.comparison.finished import FinishedRun
from kg4d.errors import InputError
from kg4d.tracking.tables import AblationTable, ablation_table

_OF_THE_RUN = ("name", "scene", "scenes", "seed", "seeds")  # settings that tell runs of an arm apart, or only name it


@dataclass(frozen=True)
class Comparison:
    """Runs by arm: those that differ in scene and seed alone.

    Attributes:
        arms: The runs of each arm; the others are compared with the first one.
        left_out: What was found and is not compared, in words.
    """

    arms: Mapping[str, Sequence[FinishedRun]]
    left_out: Sequence[str] = ()

    @classmethod
    def of(cls, runs: Sequence[FinishedRun], left_out: Sequence[str] = (), against: str | None = None) -> "Comparison":
        """Sort runs into arms.

        Args:
            runs: At least one, in the order in which arms shall appear.
            left_out: As in the attributes.
            against: Name of the arm that the others are compared with; the first one when None.

        Raises:
            InputError: There is no such arm.
        """
        naming = _naming(runs)
        arms: dict[str, list[FinishedRun]] = {}
        for run in runs:
            arms.setdefault(naming(run), []).append(run)
        if against is not None:
            if against not in arms:
                raise InputError("--against", f"no arm {against!r}", f"choose from {', '.join(arms)}")
            arms = {against: arms[against], **arms}
        return cls(arms, left_out)

    @cached_property
    def runs(self) -> list[FinishedRun]:
        """All runs."""
        return [run for runs in self.arms.values() for run in runs]

    @property
    def title(self) -> str:
        """Names of the experiments."""
        return ", ".join(dict.fromkeys(run.name for run in self.runs))

    @cached_property
    def scenes(self) -> dict[str, str]:
        """A short name of each scene, by the scene as the experiments name it."""
        short = {run.scene: run.scene_name for run in reversed(self.runs)}
        named = {run.scene: short[run.scene] for run in self.runs}
        return named if len(set(named.values())) == len(named) else {scene: scene for scene in named}

    @cached_property
    def places(self) -> dict[Path, str]:
        """By run folder what it was measured on: its scene, and how that was measured where runs differ in it."""
        how = {run.folder.path: (run.protocol.get("name"), _images(run)) for run in self.runs}
        by_scene: dict[str, set[tuple[str | None, str]]] = {}
        for run in self.runs:
            by_scene.setdefault(run.scene, set()).add(how[run.folder.path])
        return {
            run.folder.path: self.scenes[run.scene]
            + (f" ({', '.join(map(str, how[run.folder.path]))})" if len(by_scene[run.scene]) > 1 else "")
            for run in self.runs
        }

    @cached_property
    def results(self) -> dict[str, dict[str, dict[int, Mapping[str, float]]]]:
        """Metrics by arm, place and seed."""
        found: dict[str, dict[str, dict[int, Mapping[str, float]]]] = {}
        for arm, runs in self.arms.items():
            for run in runs:
                found.setdefault(arm, {}).setdefault(self.places[run.folder.path], {})[run.seed] = run.metrics
        return found

    @cached_property
    def table(self) -> AblationTable:
        """Metrics of the arms."""
        return ablation_table(self.results)

    @cached_property
    def differences(self) -> dict[str, list[str]]:
        """Settings that are not the same in all runs, by dotted key: for each arm the values it has."""
        keys = dict.fromkeys(key for run in self.runs for key in run.settings)
        values = {key: [_values(runs, key) for runs in self.arms.values()] for key in keys if not _names_runs(key)}
        return {key: of_arms for key, of_arms in values.items() if len(set(of_arms)) > 1}

    @cached_property
    def warnings(self) -> list[str]:
        """What about these runs is not comparable, or is not what it seems."""
        return [*self.left_out, *self._of_measuring(), *self._of_pairs(), *self._of_arms(), *self._of_making()]

    def _of_measuring(self) -> Iterator[str]:
        protocols = self._by(lambda run: run.protocol.get("name"))
        if len(protocols) > 1:
            yield f"Measured under different protocols ({_listed(protocols)}): test metrics are not comparable."
        elif len({str(sorted(run.protocol.items(), key=str)) for run in self.runs}) > 1:
            yield "The protocol of the same name differs between runs: measure them again with kg4d.evaluate --run."
        for scene in self.scenes:
            sizes = self._by(_images, (run for run in self.runs if run.scene == scene))
            if len(sizes) > 1:
                of_arms = _listed(sizes)
                yield f"{self.scenes[scene]} was measured on different images ({of_arms}): no differences are formed."
        seen = self._by(lambda run: bool(run.provenance.get("trained_on_test_views"))).get(True)
        if seen:
            yield f"{', '.join(seen)}: the fit has seen the test views, so its test metrics are not held out."

    def _of_pairs(self) -> Iterator[str]:
        pairs = {
            arm: {(place, seed) for place, seeds in of.items() for seed in seeds} for arm, of in self.results.items()
        }
        first, *others = pairs
        for arm in others:
            shared = pairs[arm] & pairs[first]
            if not shared:
                yield f"{arm} has no scene and seed in common with {first}: there is no difference to show."
            elif len(shared) < len(pairs[arm] | pairs[first]):
                yield f"{arm} and {first} share {len(shared)} scenes and seeds; differences are over these alone."

    def _of_arms(self) -> Iterator[str]:
        for arm, runs in self.arms.items():
            keys = dict.fromkeys(key for run in runs for key in run.settings)
            mixed = [key for key in keys if not _names_runs(key) and "; " in _values(runs, key)]
            if mixed:
                yield f"The runs of {arm} differ in {', '.join(mixed[:5])}: their mean mixes settings."

    def _of_making(self) -> Iterator[str]:
        commits = self._by(lambda run: (run.record.get("git_commit") or "unknown")[:10])
        if len(commits) > 1:
            yield f"Made by different versions of the code ({_listed(commits)})."
        machines = self._by(lambda run: f"{run.record.get('device')}, {run.record.get('renderer')} renderer")
        if len(machines) > 1:
            yield f"Made on different machines ({_listed(machines)}): seconds are not comparable."

    def _by(
        self, what: Callable[[FinishedRun], Any], runs: Iterable[FinishedRun] | None = None
    ) -> dict[Any, list[str]]:
        """Arms by something about their runs."""
        arm_of = {run.folder.path: arm for arm, of_arm in self.arms.items() for run in of_arm}
        found: dict[Any, dict[str, None]] = {}
        for run in self.runs if runs is None else runs:
            found.setdefault(what(run), {})[arm_of[run.folder.path]] = None
        return {value: list(arms) for value, arms in found.items()}


def _naming(runs: Sequence[FinishedRun]) -> Callable[[FinishedRun], str]:
    """The shortest name of a run's arm under which no two runs are the same fit: variant, experiment, both, folder."""
    names, variants = {run.name for run in runs}, {run.variant for run in runs}
    candidates: list[Callable[[FinishedRun], str]] = []
    if len(names) == 1:
        candidates.append(lambda run: run.variant)
    elif len(variants) == 1:
        candidates.append(lambda run: run.name)
    candidates.append(lambda run: f"{run.name}/{run.variant}")
    for naming in candidates:
        if len({(naming(run), run.scene, run.seed) for run in runs}) == len(runs):
            return naming
    return lambda run: str(run.folder.path)


def _names_runs(key: str) -> bool:
    return key.split(".")[0] in (*_OF_THE_RUN, "variants")


def _values(runs: Iterable[FinishedRun], key: str) -> str:
    """The values that a setting has in some runs, as a person would write them."""
    return "; ".join(dict.fromkeys(_written(run.settings[key]) if key in run.settings else "–" for run in runs))


def _written(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool | list) else str(value)


def _images(run: FinishedRun) -> str:
    """The images that a run was measured on, in words."""
    counts = run.provenance.get("counts")
    if not counts:
        return "no test images"
    return f"{counts['views']} x {counts['frames']} images of {counts['width']} x {counts['height']} px"


def _listed(groups: Mapping[Any, Sequence[str]]) -> str:
    return "; ".join(f"{value}: {', '.join(arms)}" for value, arms in groups.items())
