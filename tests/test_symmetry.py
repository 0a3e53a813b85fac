"""What must not matter: the same video from a world that is turned, scaled, moved, slower or seen in a mirror, or taken
with more pixels or more frames.

Fits are small, and rounding errors grow along their steps.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from kg4d.config.load import expand
from kg4d.config.schema import ExperimentConfig
from kg4d.data.records import Flow, Scene
from kg4d.data.scene_writer import write_scene
from kg4d.data.synthetic.scene import make_scene
from kg4d.pipeline import fit
from kg4d.render.build import build_renderer
from kg4d.runs.build import build_scene
from kg4d.runs.measure import measure
from kg4d.runs.read_back import load_run
from tests.tiny_runs import ROOT, TINY

PRESETS = ("recommended", "kg4d", "hexplane_images", "hexplane_flow", "control_points_images", "paper")
SMALL = (
    "image_size=48",
    "gaussians.count=300",
    "gaussians.hull_resolution=48",
    "static.steps=60",
    "dynamic.steps=60",
    "refine.steps=5",
    "rigidity.neighbours=10",
    "rigidity.samples=150",
    "lift.hypotheses=3",
    "lift.mirrors=4",
    "lift.trial_steps=80",
    "lift.surface=60",
    "deformation.control_points.count=64",
    "export.formats=[]",
)
WORLDS = {  # what is set, and the factor of lengths
    "turned about +Y": (("world.turn=[0, 20, 0]",), 1.0),
    "turned about +X": (("world.turn=[90, 0, 0]",), 1.0),
    "turned about +Z": (("world.turn=[0, 0, 45]",), 1.0),
    "ten times as large": (("world.scale=10",), 10.0),
    "a tenth as large": (("world.scale=0.1",), 0.1),
    "elsewhere": (("world.shift=[3, -2, 1]",), 1.0),
    "twice as fast": (("world.slower=0.5",), 1.0),
    "all of it": (
        ("world.slower=0.7", "world.turn=[17, 35, 52]", "world.scale=10", "world.shift=[30, -20, 10]"),
        10.0,
    ),
}


def first_frames(scene: Scene, count: int) -> Scene:
    """The scene without what comes after its first frames; the last of them is at time 1."""
    keypoints, flow, test, end = scene.keypoints, scene.flow, scene.test, float(scene.reference.times[count - 1])
    assert keypoints is not None
    assert keypoints.truth is not None
    assert keypoints.test_uv is not None
    assert keypoints.test_visible is not None
    assert flow is not None
    assert test is not None
    reference, test = scene.reference[:count], test[(test.frames < count).nonzero()[:, 0]]
    return replace(
        scene,
        reference=replace(reference, times=reference.times / end),
        test=replace(test, times=test.times / end),
        keypoints=replace(
            keypoints,
            uv=keypoints.uv[:count],
            weights=keypoints.weights[:count],
            truth=keypoints.truth[:count],
            test_uv=keypoints.test_uv[:, :count],
            test_visible=keypoints.test_visible[:, :count],
        ),
        flow=Flow(flow.flow[: count - 1], flow.weights[: count - 1]),
    )


Reached = Callable[..., dict[str, float]]


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Reached:
    """Metrics of a preset with other settings, measured in the images of `SMALL`; each fitted once."""
    folder = tmp_path_factory.mktemp("worlds")
    write_scene(make_scene("walker", build_renderer(), size=96), folder / "walker")
    write_scene(first_frames(make_scene("walker", build_renderer(), size=96, frames=32), 31), folder / "walker31")

    def config(preset: str, words: tuple[str, ...]) -> ExperimentConfig:
        path = folder / str(abs(hash(words)))
        settings = (*TINY, *SMALL, f"output={path}", f"scene={folder / 'walker'}", *words)
        return expand(ExperimentConfig, ROOT / f"experiments/{preset}.yaml", settings)[0].config

    @cache
    def metrics(preset: str, words: tuple[str, ...] = (), scene: str = "walker", seed: int = 0) -> dict[str, float]:
        run = load_run(fit(config(preset, (*words, f"scene={folder / scene}", f"seed={seed}"))))
        shown = config(preset, tuple(word for word in words if word.startswith("world.")))
        return measure(shown, run.fitted, build_scene(shown, build_renderer())).metrics

    return metrics


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["recommended", "kg4d"])
@pytest.mark.parametrize("world", WORLDS)
def test_a_fit_reaches_the_same_in_another_world(reached: Reached, preset: str, world: str) -> None:
    words, scale = WORLDS[world]
    here, there = reached(preset), reached(preset, words)
    decibels, share = (0.01, 1e-3) if world.startswith("turned") else (0.2, 0.05)  # turned ones agree to rounding
    for key in ("test/psnr", "train/psnr"):
        assert there[key] == pytest.approx(here[key], abs=decibels), key
    assert there["keypoints/error_3d"] == pytest.approx(scale * here["keypoints/error_3d"], rel=share)


SEEDS = (0, 1, 2)


def assert_alike(reached: Reached, preset: str, words: tuple[str, ...], scale: float) -> None:
    """Means over seeds agree, but for 0.2 dB or 5 % and what three seeds leave open.

    Where what is drawn at random differs, or rounding decides (planes that learn fast), a fit is one of many that
    differ by up to a decibel: two worlds can be told apart by their means alone.
    """
    for key, bar in (("test/psnr", 0.2), ("train/psnr", 0.2), ("keypoints/error_3d", 0.05)):
        here, there = ([reached(preset, *how, seed=seed)[key] for seed in SEEDS] for how in ((), (words,)))
        if key == "keypoints/error_3d":
            here, there = [math.log(value) for value in here], [math.log(value / scale) for value in there]
        spread = math.sqrt((statistics.variance(here) + statistics.variance(there)) / len(SEEDS))
        difference = statistics.mean(there) - statistics.mean(here)
        assert abs(difference) < bar + 2.776 * spread, f"{key}: {here}, {there}"  # Student's t, 4 degrees, 95 %


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_fit_in_the_mirror_is_as_good(reached: Reached, preset: str) -> None:
    assert_alike(reached, preset, ("world.mirrored=true",), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS[2:])
def test_other_presets_do_not_depend_on_the_world_either(reached: Reached, preset: str) -> None:
    assert_alike(reached, preset, *WORLDS["all of it"])


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("more", ["pixels", "frames"])
def test_more_pixels_or_frames_of_the_same_motion_do_no_harm(reached: Reached, preset: str, more: str) -> None:
    here = reached(preset)
    there = reached(preset, ("image_size=96",)) if more == "pixels" else reached(preset, scene="walker31")
    for key in ("test/psnr", "train/psnr"):
        assert there[key] > here[key] - 0.2, key
    assert there["keypoints/error_3d"] < 1.05 * here["keypoints/error_3d"]
