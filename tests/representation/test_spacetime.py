"""Gaussians in space and time as a representation: where they start, what is seen, what they learn."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from kg4d.config.schema import ExperimentConfig
from kg4d.data.records import Scene
from kg4d.deform.settings import DeformationConfig, DeformationKind
from kg4d.errors import InputError
from kg4d.gaussians import edits
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.settings import GaussiansConfig, LearningRates
from kg4d.gaussians.spacetime import SpacetimeModel
from kg4d.keypoints.motion import KeypointMotion
from kg4d.optim.build import build_optimizer
from kg4d.optim.objective import Objective
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.base import Renderer
from kg4d.render.reference import ReferenceRenderer
from kg4d.representation.build import build_representation
from kg4d.representation.settings import RepresentationConfig, RepresentationKind, SpacetimeConfig, SpacetimeInit
from kg4d.representation.spacetime import SpacetimeGaussians
from kg4d.stages.density import DensityControl
from kg4d.stages.settings import DensityConfig, DensityKind
from tests import make

TIMES = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
REST = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.5, 0.0]])
SHIFT = torch.tensor([0.3, -0.2, 0.1])


@pytest.fixture
def renderer() -> Renderer:
    """One that every machine has."""
    return ReferenceRenderer()


def build(count: int = 12, windows: int = 1, **settings: object) -> SpacetimeGaussians:
    model = GaussianModel.from_state(make.random_gaussians(count, frames=None))
    config = RepresentationConfig(RepresentationKind.SPACETIME, SpacetimeConfig(**settings))  # type: ignore[arg-type]
    made = build_representation(config, DeformationConfig(), model, 0.1, torch.Generator().manual_seed(0), windows)
    assert isinstance(made, SpacetimeGaussians)
    return made


def tracks() -> KeypointMotion:
    """Everything moves on a straight line."""
    known = torch.ones(3, dtype=torch.bool)
    return KeypointMotion(TIMES, REST, REST + TIMES[:, None, None] * SHIFT, torch.tensor([-1, 0, 1]), known)


def test_at_birth_each_piece_is_its_gaussian_at_rest() -> None:
    made = build(segments=5)
    rest, moving = made.rest(), made.states(TIMES)
    for k in range(5):
        piece = slice(12 * k, 12 * (k + 1))
        torch.testing.assert_close(moving.means[k, piece], rest.means)
        found = moving.at(k).covariances
        assert found is not None
        scales = replace(moving.at(k), covariances=found).ellipsoids.scales[piece]
        torch.testing.assert_close(scales, rest.ellipsoids.scales.sort(-1).values, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(moving.at(k).opacities[piece], rest.opacities, rtol=1e-4, atol=1e-5)
    assert not moving.velocities.abs().max() > 1e-5  # type: ignore[union-attr]


def test_a_single_piece_is_there_at_all_times() -> None:
    moving = build(segments=1).states(TIMES)
    torch.testing.assert_close(moving.at(0).opacities, moving.at(4).opacities)


def test_a_start_follows_the_tracks() -> None:
    made = build(segments=5)
    made.start(tracks())
    rest, moving = made.rest(), made.states(TIMES)
    for k, time in enumerate(TIMES.tolist()):
        piece = slice(12 * k, 12 * (k + 1))
        torch.testing.assert_close(moving.means[k, piece], rest.means + time * SHIFT, rtol=0, atol=1e-4)
    assert moving.velocities is not None
    torch.testing.assert_close(moving.velocities[0], SHIFT.expand(60, 3), rtol=0, atol=1e-3)


def test_pieces_follow_whatever_carries_their_gaussians() -> None:
    made = build(segments=5, carry_steps=1)
    carrier = build_representation(
        RepresentationConfig(),
        DeformationConfig(kind=DeformationKind.SKINNED),
        made.gaussians,
        0.1,
        torch.Generator().manual_seed(0),
    )
    carrier.start(tracks())
    made.carry(carrier)
    made.start(KeypointMotion(TIMES, REST, REST.expand(5, -1, -1), torch.tensor([-1, 0, 1]), torch.ones(3).bool()))
    carried, moving = carrier.states(TIMES), made.states(TIMES)
    for k in range(5):
        torch.testing.assert_close(moving.means[k, 12 * k : 12 * (k + 1)], carried.means[k], rtol=0, atol=1e-4)
    assert (carried.means[4] - carried.means[0]).norm(dim=-1).min() > 0.2


def test_keypoints_are_barycentres_of_what_is_there() -> None:
    made = build(segments=5)
    made.start(tracks())
    state = made.rest()
    at_rest = (state.keypoint_logits / 0.1).softmax(0).T @ state.means
    found = made.keypoints(TIMES)
    torch.testing.assert_close(found, at_rest + TIMES[:, None, None] * SHIFT, rtol=0, atol=1e-3)
    torch.testing.assert_close(made.keypoints(TIMES, made.states(TIMES)), found)


@pytest.mark.parametrize("time", [-3.0, 4.0])
def test_outside_the_clip_there_is_an_empty_picture(renderer: Renderer, time: float) -> None:
    state = build().states(torch.tensor([time])).at(0)
    output = renderer(state, make.cameras(size=16), background=torch.tensor([0.2, 0.4, 0.6]))
    assert not state.opacities.any()
    assert not output.alpha.any()
    assert torch.equal(output.image[0, 0, 0], torch.tensor([0.2, 0.4, 0.6]))


def test_gradients_reach_everything_that_is_fitted(renderer: Renderer) -> None:
    made = build(waves=2)
    times = torch.tensor([0.1, 0.6])
    renderer.frames(made.states(times), make.cameras((0.0, 90.0), size=16)).image.square().sum().backward()
    groups = [*made.motion_groups(), *made.rest_groups(LearningRates())]
    names = {group.name for group in groups}
    assert names == {"means", "left", "right", "log_scales", "opacity_logits", "colors", "harmonics", "waves"}
    for group in groups:
        for parameter in group.parameters:
            assert parameter.grad is not None, group.name
            assert bool(parameter.grad.any()), group.name
            assert bool(parameter.grad.isfinite().all()), group.name


def test_waves_change_colours_along_time() -> None:
    made = build(waves=1)
    with torch.no_grad():
        made.spacetime.waves[:, 0] = 0.1
    colors = made.states(torch.tensor([0.0, 0.5])).colors
    assert colors is not None
    torch.testing.assert_close(colors[0] - colors[1], torch.full_like(colors[0], 0.2))


def test_a_state_dict_of_another_number_is_read_back() -> None:
    one, other = build(12), build(12)
    edits.duplicate(one.spacetime, None, torch.arange(len(one.spacetime)) % 3 == 0)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.states(TIMES).means, other.states(TIMES).means)
    alone = copy.deepcopy(one)
    with torch.no_grad():
        alone.spacetime.means.add_(1.0)
    assert not torch.equal(alone.states(TIMES).means, one.states(TIMES).means)


def test_regularisers_make_opacities_decide_and_neighbours_agree() -> None:
    made = build(40, entropy=1.0, consistency=1.0, neighbours=3, samples=10)
    with torch.no_grad():
        made.spacetime.means[:, :3] += 0.02 * torch.randn(320, 3, generator=torch.Generator().manual_seed(0))
    groups = [*made.motion_groups(), *made.rest_groups(LearningRates())]
    optimizer = build_optimizer(OptimizerConfig(), groups)
    terms = []
    for _ in range(30):
        objective = Objective(progress=0.5)
        made.regularisers(objective, TIMES)
        assert objective.total is not None
        objective.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        terms.append({name: float(value) for name, value in objective.terms.items()})
    assert terms[-1]["entropy"] < terms[0]["entropy"]
    assert sum(t["consistency"] for t in terms[-8:]) < 0.7 * sum(t["consistency"] for t in terms[:8])


def test_draws_have_the_moments_of_their_gaussian() -> None:
    model, rows = build(2).spacetime, torch.zeros(20000, dtype=torch.int64)
    drawn = model.draws(rows, torch.Generator().manual_seed(0))
    cut = build(2).spacetime.activated(rows[:1])
    variance = float((drawn[:, 3].square()).mean())
    assert math.sqrt(variance) == pytest.approx(0.5 / 7, rel=0.05)
    assert drawn.shape == (20000, 4)
    assert cut.means.shape == (1, 4)


def test_gaussians_with_large_gradients_along_time_are_split() -> None:
    made = build()
    config = DensityConfig(DensityKind.ADAPTIVE, 0.0, 1.0, 0.5, grad_threshold=1e9, time_grad_threshold=0.5)
    density = DensityControl(config, 4)
    groups = [*made.motion_groups(), *made.rest_groups(LearningRates())]
    optimizer = build_optimizer(OptimizerConfig(), groups)
    count = len(made.spacetime)
    density.visits, density.gradient_sums = torch.ones(count), torch.zeros(count)
    gradient = torch.zeros(count, 4)
    gradient[:5, 3] = 1.0
    made.spacetime.means.grad = gradient
    density.before_step(made.spacetime)
    report = density.after_step(2, made.spacetime, optimizer, torch.Generator().manual_seed(0))
    assert (report.split, report.duplicated) == (5, 0)
    assert len(made.spacetime) == count + 5
    again = DensityControl(config, 4)
    again.load_state_dict(density.state_dict())
    assert len(again.time_sums) == 0


def with_videos(scene: Scene) -> Scene:
    return replace(scene, videos=scene.test)


def test_a_hull_of_every_frame_needs_videos_from_around() -> None:
    made, scene = build(init=SpacetimeInit.HULL, segments=2), make.tiny_scene()
    config = GaussiansConfig(count=20, hull_resolution=24)
    with pytest.raises(InputError, match=r"frames\.videos"):
        made.place(replace(scene, videos=None), config, torch.Generator().manual_seed(0))
    assert scene.test is not None
    made.place(with_videos(scene), config, torch.Generator().manual_seed(0))
    times = made.spacetime.means[:, 3].detach()
    assert torch.equal(torch.unique(times), scene.reference.times)
    before: Tensor = made.spacetime.means.detach().clone()
    made.start(tracks())
    assert torch.equal(made.spacetime.means, before)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"segments": 0}, "segments"),
        ({"overlap": 0.0}, "overlap"),
        ({"least_weight": 1.0}, "least_weight"),
        ({"samples": 0}, "samples"),
    ],
)
def test_settings_out_of_range_name_their_key(settings: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=f"representation.spacetime.{key}"):
        SpacetimeConfig(**settings)  # type: ignore[arg-type]


def test_rigidity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rigidity\.weight"):
        ExperimentConfig(representation=RepresentationConfig(RepresentationKind.SPACETIME))


def fitting(made: SpacetimeGaussians) -> Optimizer:
    groups = [*made.motion_groups(), *made.rest_groups(LearningRates())]
    return build_optimizer(OptimizerConfig(), groups)


def everything_drawn(made: SpacetimeGaussians, time: float) -> set[tuple[float, ...]]:
    """What is there at a time, in any order."""
    state = made.states(torch.tensor([time])).at(0)
    there = torch.nonzero(state.opacities)[:, 0]
    rows = torch.cat([state.means, state.opacities[:, None], state.colors], dim=-1)[there]
    return {tuple(row) for row in rows.detach().double().round(decimals=4).tolist()}


def test_a_window_keeps_aside_what_is_not_there_and_all_come_back() -> None:
    made = build(windows=3, segments=5)
    made.start(tracks())
    times = torch.linspace(0, 1, 13).tolist()
    before, count, optimizer = [everything_drawn(made, time) for time in times], len(made.spacetime), fitting(made)
    assert count == 12 * 15
    for window in ((0.0, 0.4), (0.3, 0.7), (0.6, 1.0)):
        made.focus(window, optimizer)
        assert 0 < len(made.spacetime) < 0.75 * count
        assert len(made.spacetime) + len(made.elsewhere) == count
        assert [everything_drawn(made, time) for time in times] == before
    made.focus(None, optimizer)
    assert len(made.spacetime) == count
    assert not len(made.elsewhere)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(made.spacetime.get_parameter(name))
        for name in SpacetimeModel.NAMES
        if name not in ("keypoint_logits", "waves", "origins")
    }


def test_a_later_window_leaves_alone_what_earlier_frames_see() -> None:
    made = build(windows=3, segments=5)
    made.start(tracks())
    optimizer = fitting(made)
    made.focus((0.5, 1.0), optimizer)
    early, late = everything_drawn(made, 0.45), everything_drawn(made, 0.9)
    for _ in range(5):
        made.states(torch.tensor([0.5, 0.9])).means.square().sum().backward()
        made.hold_before(0.5)
        optimizer.step()
        optimizer.zero_grad()
    assert early <= everything_drawn(made, 0.45)  # others may have reached there; what was there stands still
    assert everything_drawn(made, 0.9) != late


def test_the_length_of_a_clip_is_no_unit_of_what_is_fitted() -> None:
    """Rates and scales along time are those of a window, and so is what a Gaussian lasts in it."""
    three = build(segments=6, windows=3)
    first, last = three.spacetime.lifetimes(0.05)
    assert float((last - first).mean()) == pytest.approx(2 * math.sqrt(-2 * math.log(0.05)) * 0.5 * 3 / 17, rel=1e-3)
    three.start(tracks())
    moving = three.states(TIMES)
    assert moving.velocities is not None
    torch.testing.assert_close(moving.velocities[0], SHIFT.expand(12 * 18, 3), rtol=0, atol=1e-3)
