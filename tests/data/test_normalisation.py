"""The axes, origin and units of a fit follow from what its cameras see, not from the world that they stand in."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.data.normalisation import Normalisation, normalisation_of
from kg4d.data.readers.viewpoints import seen_radius
from kg4d.data.records import Scene
from kg4d.data.studies.world import moved, slower, turn
from kg4d.lift.settings import LiftConfig
from kg4d.lift.solve import lift_keypoints
from kg4d.render.build import build_renderer
from tests import make

TINY = make.tiny_scene()


def seen(scene: Scene) -> Scene:
    return normalisation_of(scene).scene(scene)


def assert_alike(ours: Scene, theirs: Scene, tolerance: float = 1e-5) -> None:
    for part in ("reference", "ring", "test"):
        a, b = getattr(ours, part), getattr(theirs, part)
        torch.testing.assert_close(a.cameras.viewmats, b.cameras.viewmats, atol=tolerance, rtol=0)
        torch.testing.assert_close(a.times, b.times)
    torch.testing.assert_close(ours.keypoints.truth, theirs.keypoints.truth, atol=tolerance, rtol=0)


def test_a_scene_of_the_usual_kind_stays_as_it_is() -> None:
    """The first camera on +Z at a distance of 2, around the origin: settings keep their meaning."""
    assert_alike(seen(TINY), TINY, tolerance=1e-6)


@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.floats(-10.0, 10.0), st.floats(0.1, 1.0))
def test_a_fit_sees_the_same_whatever_the_axes_units_place_and_pace_of_the_world(
    seed: int, scale: float, shift: float, pace: float
) -> None:
    axis, degrees = torch.randn(3, generator=torch.Generator().manual_seed(seed)).tolist(), 37.0 * seed
    world = moved(slower(TINY, pace), turn(axis, degrees), scale, (scale * shift, scale * -shift, 0.0))
    assert_alike(seen(world), TINY, tolerance=3e-5)


def test_gaussians_taken_to_the_world_look_the_same_there() -> None:
    turned = turn([0.3, -0.5, 0.8], 70.0)
    normalisation = Normalisation(turned, torch.tensor([0.4, -2.0, 1.0], dtype=torch.float64), unit=3.0)
    state = make.random_gaussians(30, sh_degree=3, spread=0.3)
    state = replace(state, scales=0.1 * state.scales)
    cameras, renderer = make.cameras([0.0, 130.0], [10.0, -30.0], size=32), build_renderer("reference")
    world = replace(cameras, viewmats=cameras.viewmats.clone())
    world.viewmats[:, :3, :3] = cameras.viewmats[:, :3, :3] @ turned.float()
    world.viewmats[:, :3, 3] = 3.0 * cameras.viewmats[:, :3, 3]
    world.viewmats[:, :3, 3] -= (world.viewmats[:, :3, :3] @ normalisation.center.float()[:, None])[..., 0]
    torch.testing.assert_close(normalisation.cameras(world).viewmats, cameras.viewmats, atol=1e-5, rtol=0)
    found, expected = (renderer(normalisation.world_state(state), world).image, renderer(state, cameras).image)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("distance", [0.7, 1.0, 5.0])
def test_a_lens_that_makes_all_look_small_or_large_changes_the_unit(distance: float) -> None:
    """The same body and images from another distance, through another lens."""
    scene = moved(TINY, scale=distance)
    parts = {part: getattr(scene, part) for part in ("reference", "ring", "test")}
    for part, images in parts.items():
        Ks = images.cameras.Ks * torch.tensor([distance, distance, 1.0])[:, None]
        Ks[:, :2, 2] = images.cameras.Ks[:, :2, 2]
        parts[part] = replace(images, cameras=replace(images.cameras, Ks=Ks))
    normalisation = normalisation_of(replace(scene, **parts))
    assert 0.29 < seen_radius([TINY.ring], torch.zeros(3)) / normalisation.unit < 0.86


def test_two_cameras_that_look_at_a_point_find_it_wherever_it_is() -> None:
    shift = (100.0, -50.0, 20.0)
    torch.testing.assert_close(normalisation_of(moved(TINY, shift=shift)).center, torch.tensor(shift).double())


def test_files_and_worlds_lead_back() -> None:
    world = moved(TINY, turn((1, 2, 3), 50.0), 3.0, (1.0, 2.0, 3.0))
    normalisation = normalisation_of(world)
    read = Normalisation.from_state(json.loads(json.dumps(normalisation.state())))
    points = torch.randn(5, 4, 3)
    torch.testing.assert_close(read.world_points(read.points(points)), points)
    assert torch.equal(read.points(points), normalisation.points(points))
    none = Normalisation.none()
    assert torch.equal(none.points(points), points)
    assert torch.equal(none.cameras(world.reference.cameras).viewmats, world.reference.cameras.viewmats)


def test_unusual_units_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kg4d"):
        normalisation_of(TINY)
        assert not caplog.text
        normalisation_of(moved(TINY, scale=7.0))
    assert "units of 7" in caplog.text


@pytest.mark.parametrize(
    ("axis", "degrees"), [((0, 1, 0), 20.0), ((0, 1, 0), 45.0), ((1, 0, 0), 70.0), ((0, 0, 1), 30.0), ((1, 1, 1), 90.0)]
)
def test_the_lift_of_a_turned_world_is_the_turned_lift(axis: Sequence[float], degrees: float) -> None:
    rotation = turn(axis, degrees)

    def tracks(world: Scene) -> torch.Tensor:
        normalisation = normalisation_of(world)
        scene = normalisation.scene(world)
        lift = lift_keypoints(
            LiftConfig(steps=40),
            scene.keypoints.truth[0].double().round(decimals=4).float(),  # without the rounding errors of the world
            torch.tensor(scene.keypoints.parents),
            scene.keypoints.uv,
            scene.keypoints.weights,
            scene.reference.cameras,
            scene.reference.times,
            torch.Generator().manual_seed(0),
        )
        return normalisation.world_points(lift.tracks)

    straight = tracks(TINY)
    assert float((straight - straight[:1]).norm(dim=-1).max()) > 0.05
    torch.testing.assert_close(tracks(moved(TINY, rotation)), straight @ rotation.float().T, atol=1e-5, rtol=0)
