"""What must not matter: the same video from a world that is turned, scaled, moved, slower or seen in a mirror.

Fits are small, so what is compared is one optimisation with itself: rounding errors grow along the steps, and a mirror
changes what is drawn at random.
"""

import json
from functools import cache

import pytest

from kg4d.data.records import Scene
from kg4d.data.scene_writer import write_scene
from kg4d.data.studies.world import mirrored, moved, slower, turn
from kg4d.data.synthetic.scene import make_scene
from kg4d.pipeline import fit
from kg4d.render.build import build_renderer
from tests.tiny_runs import tiny

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
    "lift.surface=60",
    "deformation.control_points.count=64",
    "export.formats=[]",
)


@cache
def walker() -> Scene:
    return make_scene("walker", build_renderer(), size=48)


WORLDS = {
    "turned about +Y": (lambda: moved(walker(), turn((0, 1, 0), 20.0)), 1.0),
    "turned about +X": (lambda: moved(walker(), turn((1, 0, 0), 90.0)), 1.0),
    "turned about +Z": (lambda: moved(walker(), turn((0, 0, 1), 45.0)), 1.0),
    "ten times as large": (lambda: moved(walker(), scale=10.0), 10.0),
    "a tenth as large": (lambda: moved(walker(), scale=0.1), 0.1),
    "elsewhere": (lambda: moved(walker(), shift=(3.0, -2.0, 1.0)), 1.0),
    "twice as fast": (lambda: slower(walker(), 0.5), 1.0),
    "all of it": (lambda: moved(slower(walker(), 0.7), turn((1, 2, 3), 65.0), 10.0, (30.0, -20.0, 10.0)), 10.0),
    "mirrored": (lambda: mirrored(walker()), 1.0),
}


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory):
    """Metrics of a preset in a world, each fitted once."""
    folder = tmp_path_factory.mktemp("worlds")

    @cache
    def metrics(preset: str, world: str | None) -> dict[str, float]:
        path = folder / (world or "as it is").replace(" ", "_")
        if not path.exists():
            write_scene(walker() if world is None else WORLDS[world][0](), path)
        run = fit(tiny(folder / "runs" / path.name, *SMALL, f"scene={path}", file=preset))
        found: dict[str, float] = json.loads((run / "metrics.json").read_text())["metrics"]
        return found

    return metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "world"),
    [
        *((preset, world) for preset in ("recommended", "kg4d") for world in WORLDS),
        *((preset, world) for preset in PRESETS[2:] for world in ("all of it", "mirrored")),
    ],
)
def test_a_fit_reaches_the_same_in_another_world(reached, preset: str, world: str) -> None:
    here, there, scale = reached(preset, None), reached(preset, world), WORLDS[world][1]
    decibels, share = (0.01, 1e-3) if world.startswith("turned") else (0.2, 0.05)  # turned ones agree to rounding
    for key in ("test/psnr", "train/psnr"):
        assert there[key] == pytest.approx(here[key], abs=decibels), key
    assert there["keypoints/error_3d"] == pytest.approx(scale * here["keypoints/error_3d"], rel=share)
