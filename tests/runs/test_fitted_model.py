"""A fitted model in the world of its scene: its optical flow in closed form, and other axes inside."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.data.normalisation import Normalisation
from kg4d.data.records import Depth, Flow, Keypoints, PosedImages, Scene, Truth
from kg4d.deform.base import Deformation
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras, project_each
from kg4d.geometry.rotations import nearest_rotation
from kg4d.metrics.feature_networks import Networks
from kg4d.metrics.protocols import GLTF4D
from kg4d.render.build import build_renderer
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.measure import evaluate_model
from tests import make

SIZE, FOCAL, DEPTH = 32, 40.0, 2.0
TIMES = torch.tensor([0.0, 0.25, 1.0])


class Sliding(Deformation):
    """Moves everything along x, by `speed` world units until time 1."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self.speed = speed

    def forward(self, canonical: GaussianState, times: Tensor) -> MovingGaussians:
        still = MovingGaussians.still(canonical, len(times))
        shift = torch.stack([self.speed * times, 0 * times, 0 * times], dim=-1)
        return replace(still, means=still.means + shift[:, None])


def wall(speed: float) -> FittedModel:
    """Gaussians in the plane z = `DEPTH`, where a shift is the same number of px everywhere."""
    means = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 0.8 - 0.4
    means[:, 2] = DEPTH
    logits = torch.arange(80.0).reshape(40, 2)
    state = make.gaussians(means, scales=0.06, opacities=0.8, colors=0.5, keypoint_logits=logits)
    moving = CanonicalGaussians(GaussianModel.from_state(state), Sliding(speed), 1.0)
    return FittedModel(moving, build_renderer("reference"), torch.ones(3))


def dolly(positions: Tensor) -> Cameras:
    """Cameras at these places on the x axis that look along +z."""
    viewmats = torch.eye(4).repeat(len(positions), 1, 1)
    viewmats[:, 0, 3] = -positions
    K = torch.tensor([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    return Cameras(viewmats, K.expand(len(positions), 3, 3), SIZE, SIZE)


@pytest.mark.parametrize(("speed", "camera_speed"), [(0.0, 0.2), (0.3, 0.3), (0.3, 0.0), (-0.1, 0.2)])
def test_flow_is_the_motion_of_the_object_less_that_of_the_camera(speed: float, camera_speed: float) -> None:
    fitted, cameras = wall(speed), dolly(camera_speed * TIMES)
    for t, state in enumerate(fitted.states(TIMES[:-1])):
        shown = fitted.renderer(state, cameras[t]).alpha[0, ..., 0] > 0.1
        found = fitted.flow(cameras[[t, t + 1]], TIMES[[t, t + 1]])[shown]
        px = FOCAL / DEPTH * (speed - camera_speed) * float(TIMES[t + 1] - TIMES[t])
        assert len(found) > 100
        torch.testing.assert_close(found, torch.tensor([px, 0.0]).expand_as(found), atol=1e-4, rtol=0)


def test_a_true_model_has_no_flow_error_under_a_moving_camera() -> None:
    fitted, cameras = wall(speed=0.1), dolly(0.4 * TIMES)
    output = [fitted.renderer(state, cameras[t]) for t, state in enumerate(fitted.states(TIMES))]
    images = torch.cat([torch.cat([o.image, o.alpha], dim=-1) for o in output])
    px = FOCAL / DEPTH * (0.1 - 0.4) * TIMES.diff()
    flow = torch.stack([px, torch.zeros(2)], dim=-1)[:, None, None].expand(2, SIZE, SIZE, 2)
    frames = torch.arange(3)
    reference = PosedImages(cameras, images, TIMES, frames, torch.zeros_like(frames))
    scene = Scene("wall", reference, flow=Flow(flow, (images[:2, ..., 3] > 0.1).float()))
    metrics = evaluate_model(fitted, scene, GLTF4D, Networks()).metrics
    assert metrics["motion/flow_epe"] < 1e-4


def test_truth_of_pixels_is_measured_whole_and_where_something_moves() -> None:
    """The camera slides along a wall at rest; what is said to be true is 1 px and a tenth off in the left half."""
    fitted, cameras = wall(speed=0.0), dolly(0.4 * TIMES)
    output = [fitted.renderer(state, cameras[t]) for t, state in enumerate(fitted.states(TIMES))]
    images = torch.cat([torch.cat([o.image, o.alpha], dim=-1) for o in output])
    shown = (images[..., 3] > 0.1).float()
    px = FOCAL / DEPTH * -0.4 * TIMES.diff()
    flow = torch.stack([px, torch.zeros(2)], dim=-1)[:, None, None].expand(2, SIZE, SIZE, 2).clone()
    depth = torch.full((3, SIZE, SIZE), DEPTH)
    flow[:, :, : SIZE // 2, 1] += 1
    depth[:, :, : SIZE // 2] *= 1 / 1.1
    left = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    left[:, :, : SIZE // 2] = True
    frames = torch.arange(3)
    reference = PosedImages(cameras, images, TIMES, frames, torch.zeros_like(frames))
    truth = Truth(Depth(depth, shown), Flow(flow, shown[:-1]), left)
    scene = Scene("wall", reference, flow=Flow(0 * flow, shown[:-1]), truth=truth)  # the truth goes before an input
    metrics = evaluate_model(fitted, scene, GLTF4D, Networks()).metrics
    share = float((shown * left).sum() / shown.sum())
    assert metrics["motion/flow_epe_dynamic"] == pytest.approx(1, abs=1e-3)
    assert metrics["motion/flow_epe"] == pytest.approx(float((shown * left)[:-1].sum() / shown[:-1].sum()), abs=1e-3)
    assert metrics["depth/abs_rel_dynamic"] == pytest.approx(0.1, abs=1e-4)
    assert metrics["depth/abs_rel"] == pytest.approx(0.1 * share, abs=1e-4)
    assert metrics["depth/delta_1.25"] == metrics["depth/delta_1.25_dynamic"] == 1


class Boasting(Sliding):
    """Says that its keypoints slide at half a world unit, whatever it does with the Gaussians."""

    def keypoints(self, times: Tensor) -> Tensor:
        return START + 0.5 * times[:, None, None] * torch.tensor([1.0, 0.0, 0.0])


START = torch.tensor([[0.0, 0.0, DEPTH], [0.1, -0.1, DEPTH]])


def test_the_error_of_keypoints_is_that_of_what_is_drawn_and_tracks_have_a_key_of_their_own() -> None:
    """The truth slides at .5; what is drawn stands still, off by .5, .25 and 0 at times 1, .5 and 0."""
    fitted, times = wall(speed=0.0), torch.tensor([0.0, 0.5, 1.0])
    drawn = fitted.keypoints(times)  # at rest
    moving = CanonicalGaussians(fitted.representation.gaussians, Boasting(0.0), 1.0)
    slide = 0.5 * times[:, None, None] * torch.tensor([1.0, 0.0, 0.0])
    cameras, frames = dolly(torch.zeros(3)), torch.arange(3)
    images = torch.cat([torch.rand(3, SIZE, SIZE, 3), torch.ones(3, SIZE, SIZE, 1)], dim=-1)
    video = PosedImages(cameras, images, times, frames, torch.zeros_like(frames))
    truth = drawn + slide
    uv = project_each(truth, cameras)
    keypoints = Keypoints(
        names=("a", "b"),
        parents=(-1, 0),
        uv=uv,
        weights=torch.ones(3, 2),
        truth=truth,
        test_uv=uv[None],
        test_visible=torch.ones(1, 3, 2, dtype=torch.bool),
    )
    scene = Scene("wall", video, keypoints=keypoints, test=video)
    metrics = evaluate_model(replace(fitted, representation=moving), scene, GLTF4D, Networks()).metrics
    assert metrics["keypoints/error_3d"] == pytest.approx(0.25)
    assert metrics["keypoints/error_3d_tracks"] == pytest.approx(float((START - drawn[0]).norm(dim=-1).mean()))
    limit = 0.05 * SIZE * DEPTH / FOCAL  # of the box, at the depth of the keypoints
    near = (START - drawn[0]).norm(dim=-1) <= limit
    assert metrics["keypoints/pck_0.05"] == pytest.approx(1 / 3)  # at time 0 alone
    assert metrics["keypoints/pck_0.05_tracks"] == pytest.approx(float(near.float().mean()))


def test_a_model_that_was_fitted_in_other_axes_and_units_answers_in_those_of_the_world() -> None:
    """Its cameras and times are those of the world; so are Gaussians and keypoints, which draw the same there."""
    turn = nearest_rotation(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    there = Normalisation(turn, torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64), unit=4.0, duration=0.5)
    inside, inner = wall(speed=0.2), dolly(0.1 * TIMES)
    outside, rotations = replace(inside, normalisation=there), inner.viewmats[:, :3, :3] @ turn.float()
    viewmats, times = inner.viewmats.clone(), TIMES / 2
    viewmats[:, :3, :3] = rotations
    viewmats[:, :3, 3] = 4 * viewmats[:, :3, 3] - rotations @ there.center.float()
    outer = replace(inner, viewmats=viewmats)
    torch.testing.assert_close(there.cameras(outer).viewmats, inner.viewmats, atol=1e-5, rtol=0)
    images = outside.render(outer, times)
    torch.testing.assert_close(images, inside.render(inner, TIMES), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        outside.flow(outer[[0, 2]], times[[0, 2]]), inside.flow(inner[[0, 2]], TIMES[[0, 2]]), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(outside.depth(outer, times), 4 * inside.depth(inner, TIMES), atol=1e-3, rtol=0)
    drawn = outside.renderer(outside.states(times)[2], outer[2], background=outside.background).image[0]
    torch.testing.assert_close(drawn, images[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        outer[2].project(outside.keypoints(times)[2]).pixels,
        inner[2].project(inside.keypoints(TIMES)[2]).pixels,
        atol=1e-3,
        rtol=0,
    )
