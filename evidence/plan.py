"""The protocol: which arms, on which scenes, with which seeds."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from kg4d.config.schema import ExperimentConfig
from kg4d.sweeps.sharing import share_stages

ROOT = Path(__file__).parent.parent
PLAN = Path(__file__).parent / "plan.yaml"


@dataclass
class Arm:
    """One configuration: an experiment file, relative to the checkout, and what is changed in it."""

    config: str = MISSING
    set: list[str] = field(default_factory=list)


@dataclass
class Group:
    """Arms that are compared with one of them, or with `group/arm`; `set` holds for all.

    Without `metrics` all are shown; without `seeds` those of the plan are run; `mirrored` names the arms that
    are fitted on the mirrored scenes too.
    """

    title: str = MISSING
    against: str = MISSING
    set: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    mirrored: list[str] = field(default_factory=list)
    arms: dict[str, Arm] = field(default_factory=dict)


@dataclass
class Plan:
    """Everything that is run; scenes are given by what they set, `mirrored` ones are for arms that ask for them."""

    scenes: dict[str, list[str]] = MISSING
    mirrored: dict[str, list[str]] = MISSING
    synthetic: dict[str, list[str]] = MISSING
    seeds: list[int] = MISSING
    common: list[str] = MISSING
    groups: dict[str, Group] = MISSING


@dataclass(frozen=True)
class Job:
    """One fit."""

    group: str
    arm: str
    scene: str
    seed: int
    config: Path
    overrides: tuple[str, ...]


def read_plan(path: Path = PLAN) -> Plan:
    """Read a plan; OmegaConf refuses keys and types that it does not know."""
    read: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Plan), OmegaConf.load(path)))
    assert isinstance(read, Plan)
    for name, group in read.groups.items():
        where, arm = compared_with(name, group)
        if where not in read.groups or arm not in read.groups[where].arms:
            raise ValueError(f"{path}: group {name}: there is no arm {group.against!r}")
    return read


def compared_with(name: str, group: Group) -> tuple[str, str]:
    """The group and the arm that a group is compared with."""
    where, _, arm = group.against.rpartition("/")
    return where or name, arm


def scenes_of(plan: Plan, mirrored: bool = False) -> dict[str, list[str]]:
    """What each scene sets, by name: the real characters where they are present, else the synthetic ones.

    Args:
        plan: All of them.
        mirrored: Add the mirrored scenes.
    """
    data = Path(os.environ.get("KG4D_DATA", ROOT.parent / "shared" / "data")) / "gltf4d"
    chosen = {**plan.scenes, **(plan.mirrored if mirrored else {})}
    placed = {
        name: [f"scene={data / word.removeprefix('scene=')}" if word.startswith("scene=") else word for word in words]
        for name, words in chosen.items()
    }
    there = (Path(word.removeprefix("scene=")) for words in placed.values() for word in words if "scene=" in word)
    return placed if all(path.is_dir() for path in there) else plan.synthetic


def jobs(plan: Plan, output: Path) -> list[Job]:
    """All fits; every arm of a scene and seed before the next, so that a run cut short leaves whole comparisons."""
    return [
        Job(
            name,
            arm,
            scene,
            seed,
            ROOT / choice.config,
            (
                f"output={output / name}",
                f"name={scene}",
                *words,
                f"variants={{{arm}: []}}",
                f"seed={seed}",
                *plan.common,
                *group.set,
                *choice.set,
            ),
        )
        for seed in plan.seeds
        for name, group in plan.groups.items()
        for scene, words in scenes_of(plan, mirrored=True).items()
        for arm, choice in group.arms.items()
        if (not group.seeds or seed in group.seeds) and (scene not in plan.mirrored or arm in group.mirrored)
    ]


def share_in_plan(config: ExperimentConfig) -> None:
    """Begin a run with the stages of other runs of its scene and seed, whatever group they are in."""
    share_stages(config, Path(config.output).parent.glob(f"*/{config.name}/*/seed{config.seed}"))
