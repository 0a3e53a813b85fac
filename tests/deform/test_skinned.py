import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.deform.base import RestGaussians
from kg4d.deform.build import build_deformation
from kg4d.deform.settings import Blend, DeformationConfig, DeformationKind, SkinnedConfig
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.edits import duplicate, remove, split
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_multiply, quat_rotate, quat_to_matrix
from kg4d.keypoints.motion import KeypointMotion
from tests import make

BLENDS = list(Blend)
TIMES = torch.tensor([0.0, 0.2, 0.5, 0.6, 1.0])


def state(count: int = 12, joints: int = 3, dtype: torch.dtype = torch.float32) -> GaussianState:
    return make.random_gaussians(count, frames=joints, dtype=dtype, seed=4)


def moving(blend: Blend = Blend.LINEAR, joints: int = 3) -> SkinnedDeformation:
    """One whose frames are all over the place at every key but the first."""
    g = torch.Generator().manual_seed(5)
    deformation = SkinnedDeformation(SkinnedConfig(blend), joints)
    tracks, quats = torch.randn(5, joints, 3, generator=g), torch.randn(5, joints, 4, generator=g)
    deformation.set_keys(TIMES, torch.randn(joints, 3, generator=g), tracks, quats)
    return deformation


@pytest.mark.parametrize("blend", BLENDS)
def test_nothing_moves_at_the_first_key_whatever_was_learned(blend: Blend) -> None:
    gaussians, deformation = state(500), moving(blend)
    moved = deformation(gaussians, TIMES[:1])
    assert torch.equal(moved.means[0], gaussians.means)
    assert torch.equal(moved.quats[0], gaussians.quats)
    assert torch.equal(moved.scales[0], gaussians.scales)
    assert torch.equal(deformation.keypoints(TIMES[:1])[0], deformation.rest)


def test_keypoints_that_are_not_their_frames_move_alone_and_are_read_back() -> None:
    gaussians, deformation = state(), moving()
    times = torch.linspace(0, 1, 7)
    before, tracks = deformation(gaussians, times), torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(7))
    deformation.correct_keypoints(lambda _: tracks)
    torch.testing.assert_close(deformation.keypoints(TIMES[1:]), tracks[1:])
    assert torch.equal(deformation.keypoints(TIMES[:1])[0], deformation.rest)
    assert torch.equal(deformation(gaussians, times).means, before.means)
    frames = moving()
    frames.set_keys(
        TIMES, deformation.rest, torch.cat([deformation.rest[None], tracks[1:]]), deformation.frames(TIMES)[1]
    )
    torch.testing.assert_close(deformation.keypoints(times), frames.keypoints(times))  # on the curve that frames follow
    fresh = SkinnedDeformation(SkinnedConfig(), 3)
    fresh.load_state_dict(deformation.state_dict())
    assert torch.equal(fresh.keypoints(times), deformation.keypoints(times))
    translations = deformation.frames(TIMES)[0]
    deformation.set_keys(TIMES, deformation.rest, deformation.rest + translations, deformation.frames(TIMES)[1])
    torch.testing.assert_close(deformation.keypoints(TIMES), deformation.rest + translations)  # as the frames again


@pytest.mark.parametrize("blend", BLENDS)
def test_frames_that_move_as_one_body_carry_the_gaussians(blend: Blend) -> None:
    gaussians, deformation = state(), SkinnedDeformation(SkinnedConfig(blend), 3)
    g = torch.Generator().manual_seed(6)
    rest, turn, shift = (torch.randn(*shape, generator=g) for shape in ((3, 3), (4,), (3,)))
    tracks = torch.stack([rest, quat_rotate(turn.expand(3, 4), rest) + shift])
    deformation.set_keys(torch.tensor([0.0, 1.0]), rest, tracks, turn.expand(2, 3, 4))
    moved = deformation(gaussians, torch.ones(1))
    torch.testing.assert_close(moved.means[0], quat_rotate(turn.expand(12, 4), gaussians.means) + shift)
    own = quat_multiply(turn.expand(12, 4), gaussians.quats)
    torch.testing.assert_close(quat_to_matrix(moved.quats[0]), quat_to_matrix(own), atol=1e-5, rtol=1e-5)


def test_skinning_weights_are_a_partition_of_unity_and_follow_the_logits() -> None:
    gaussians, deformation = state(), moving()
    weights = deformation.skinning_weights(gaussians)
    torch.testing.assert_close(weights.sum(-1), torch.ones(12))
    assert bool((weights > 0).all())
    assert torch.equal(weights.argmax(-1), gaussians.skinning_logits.argmax(-1))


def test_the_curve_goes_through_the_keys_and_is_smooth_between() -> None:
    deformation = moving()
    translations, quats = deformation.frames(TIMES)
    expected_translations, expected_quats = deformation.keys()
    torch.testing.assert_close(translations, expected_translations)
    torch.testing.assert_close(quat_to_matrix(quats), quat_to_matrix(expected_quats))
    step = 1e-4
    near = torch.stack([TIMES[1:-1] - step, TIMES[1:-1], TIMES[1:-1] + step], dim=1).double()
    speeds = deformation.double().frames(near.flatten())[0].unflatten(0, (3, 3)).diff(dim=1) / step
    torch.testing.assert_close(speeds[:, 0], speeds[:, 1], atol=0.05, rtol=0.05)


def test_frames_on_a_line_stay_on_it_between_the_keys_and_beyond_them_they_stay() -> None:
    deformation = SkinnedDeformation(SkinnedConfig(), 2)
    rest = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    line = rest + TIMES[:, None, None] * torch.tensor([1.0, 2.0, 3.0])
    deformation.set_keys(TIMES, rest, line, torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(5, 2, 4))
    between = torch.linspace(0, 1, 13)
    expected = rest + between[:, None, None] * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(deformation.keypoints(between), expected)
    torch.testing.assert_close(deformation.keypoints(torch.tensor([-1.0, 2.0])), line[[0, -1]])


@pytest.mark.parametrize("blend", BLENDS)
def test_the_gradients_are_those_of_the_function(blend: Blend) -> None:
    gaussians, deformation = state(3, dtype=torch.float64), moving(blend).double()

    def means(logits: Tensor, translations: Tensor, quats: Tensor) -> tuple[Tensor, Tensor]:
        values = {"translations": translations, "quats": quats}
        there = replace(gaussians, skinning_logits=logits)
        geometry = torch.func.functional_call(deformation, values, (there, torch.tensor([0.1, 0.55]).double()))
        return geometry.means, geometry.quats

    inputs = (gaussians.skinning_logits, deformation.translations.detach(), deformation.quats.detach())
    assert torch.autograd.gradcheck(means, [value.clone().requires_grad_() for value in inputs])


def test_a_saved_motion_is_read_back_whatever_its_number_of_keys() -> None:
    saved, gaussians = moving(), state()
    fresh = SkinnedDeformation(SkinnedConfig(), 3)
    fresh.load_state_dict(saved.state_dict())
    between = torch.linspace(0, 1, 7)
    assert torch.equal(fresh(gaussians, between).means, saved(gaussians, between).means)


def test_what_is_saved_holds_plain_tensors(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("weights") / "motion.pt"
    torch.save(moving().state_dict(), path)
    assert set(torch.load(path, weights_only=True)) == {"rest", "times", "translations", "quats", "keypoint_offsets"}


def test_edits_of_the_gaussians_take_their_skinning_weights_along() -> None:
    model = GaussianModel.from_state(state())
    deformation, mask = moving(), torch.arange(12) % 3 == 0
    before = deformation.skinning_weights(model.state())
    duplicate(model, None, mask)
    torch.testing.assert_close(deformation.skinning_weights(model.state()), torch.cat([before, before[mask]]))
    remove(model, None, torch.arange(16) >= 12)
    split(model, None, mask, torch.Generator().manual_seed(0))
    halves = before[mask].repeat(2, 1)
    torch.testing.assert_close(deformation.skinning_weights(model.state()), torch.cat([before[~mask], halves]))
    assert deformation(model.state(), TIMES).means.shape == (5, 16, 3)


def test_it_needs_keypoints_and_key_times_that_ascend() -> None:
    with pytest.raises(ValueError, match="needs keypoints"):
        SkinnedDeformation(SkinnedConfig(), 0)
    for wrong in (SkinnedConfig(temperature=0.0), SkinnedConfig(sigma=0.0)):
        with pytest.raises(ValueError, match="positive"):
            SkinnedDeformation(wrong, 3)
    with pytest.raises(ValueError, match="ascend"):
        moving().set_keys(torch.tensor([0.0, 0.0]), torch.zeros(3, 3), torch.zeros(2, 3, 3), torch.ones(2, 3, 4))


def test_without_keypoints_the_motion_is_the_network_alone(caplog: pytest.LogCaptureFixture) -> None:
    config, rest = DeformationConfig(DeformationKind.SKINNED), RestGaussians(torch.zeros(1, 3), 1.0)
    with caplog.at_level(logging.WARNING, "kg4d"):
        found = build_deformation(config, rest, torch.Generator().manual_seed(0))
    assert "no keypoints" in caplog.text
    plain = build_deformation(DeformationConfig(DeformationKind.HSE), rest, torch.Generator().manual_seed(0))
    assert found.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_gaussians_without_skinning_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="carry skinning logits"):
        moving()(replace(state(), skinning_logits=None), TIMES)


REST = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.5, 0.0]])
PARENTS = torch.tensor([-1, 0, 1])


def arm_tracks(positions: Tensor, known: list[bool] | None = None) -> KeypointMotion:
    times = torch.linspace(0, 1, len(positions))
    return KeypointMotion(times, REST, positions, PARENTS, torch.tensor(known or [True] * 3))


def on_bones() -> GaussianState:
    """On the two bones, evenly."""
    along = torch.linspace(0, 1, 11)[:, None]
    means = torch.cat([REST[0] + along * (REST[1] - REST[0]), REST[1] + along * (REST[2] - REST[1])])
    return replace(state(len(means)), means=means, quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(means), 1))


def test_gaussians_follow_the_bones_they_lie_on() -> None:
    gaussians, deformation = on_bones(), SkinnedDeformation(SkinnedConfig(), 3)
    positions = torch.stack([REST, REST, REST])
    positions[2, 2] = torch.tensor([0.0, 1.0, 0.0])  # the second bone swings up about joint 1
    deformation.start(arm_tracks(positions))
    times = torch.linspace(0, 1, 3)
    torch.testing.assert_close(deformation.keypoints(times), positions)
    gaussians = replace(gaussians, skinning_logits=deformation.skinning_logits(gaussians.means))
    weights = deformation.skinning_weights(gaussians)
    assert float(weights[3, 0]) > 0.9
    assert float(weights[-6:, 1:].sum(-1).min()) > 0.99
    moved = deformation(gaussians, times).means
    torch.testing.assert_close(moved[:, :9], gaussians.means[:9].expand(3, -1, -1), atol=0.02, rtol=0)
    swung = torch.tensor([0.0, 0.8, 0.0])  # three fifths along the second bone
    torch.testing.assert_close(moved[2, 17], swung, atol=0.05, rtol=0)


def test_frames_that_are_not_known_carry_nothing() -> None:
    deformation = SkinnedDeformation(SkinnedConfig(), 3)
    deformation.start(arm_tracks(REST.expand(2, 3, 3), [True, False, True]))
    logits = deformation.skinning_logits(on_bones().means)
    assert float((logits / 0.1).softmax(-1)[:, 1].max()) < 1e-6


def test_far_gaussians_still_have_a_gradient() -> None:
    deformation = SkinnedDeformation(SkinnedConfig(), 3)
    deformation.start(arm_tracks(REST.expand(2, 3, 3)))
    logits = deformation.skinning_logits(torch.full((1, 3), 5.0))
    torch.testing.assert_close((logits / 0.1).softmax(-1), torch.full((1, 3), 1 / 3))
