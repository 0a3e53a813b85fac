from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kg4d.deform.build import DeformationConfig, DeformationKind, build_deformation
from kg4d.deform.skinned import Blend, SkinnedConfig, SkinnedDeformation
from kg4d.gaussians.edits import duplicate, remove, split
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.rotations import quat_multiply, quat_rotate, quat_to_matrix

BLENDS = list(Blend)
TIMES = torch.tensor([0.0, 0.2, 0.5, 0.6, 1.0])


def state(count: int = 12, joints: int = 3, dtype: torch.dtype = torch.float32) -> GaussianState:
    g = torch.Generator().manual_seed(4)
    return GaussianState(
        means=torch.randn(count, 3, generator=g, dtype=dtype),
        quats=torch.randn(count, 4, generator=g, dtype=dtype),
        scales=torch.rand(count, 3, generator=g, dtype=dtype) + 0.01,
        opacities=torch.rand(count, generator=g, dtype=dtype),
        colors=torch.rand(count, 3, generator=g, dtype=dtype),
        keypoint_logits=0.1 * torch.randn(count, joints, generator=g, dtype=dtype),
    )


def moving(blend: Blend = Blend.LINEAR, joints: int = 3) -> SkinnedDeformation:
    """One whose frames are all over the place at every key but the first."""
    g = torch.Generator().manual_seed(5)
    deformation = SkinnedDeformation(SkinnedConfig(blend), joints, None, None)
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
    deformation.set_keypoints(tracks)
    torch.testing.assert_close(deformation.keypoints(TIMES[1:]), tracks[1:])
    assert torch.equal(deformation.keypoints(TIMES[:1])[0], deformation.rest)
    assert torch.equal(deformation(gaussians, times).means, before.means)
    frames = moving()
    frames.set_keys(
        TIMES, deformation.rest, torch.cat([deformation.rest[None], tracks[1:]]), deformation.frames(TIMES)[1]
    )
    torch.testing.assert_close(deformation.keypoints(times), frames.keypoints(times))  # on the curve that frames follow
    fresh = SkinnedDeformation(SkinnedConfig(), 3, None, None)
    fresh.load_state_dict(deformation.state_dict())
    assert torch.equal(fresh.keypoints(times), deformation.keypoints(times))
    shifts = deformation.frames(TIMES)[0]
    deformation.set_keys(TIMES, deformation.rest, deformation.rest + shifts, deformation.frames(TIMES)[1])
    torch.testing.assert_close(deformation.keypoints(TIMES), deformation.rest + shifts)  # as the frames again


@pytest.mark.parametrize("blend", BLENDS)
def test_frames_that_move_as_one_body_carry_the_gaussians(blend: Blend) -> None:
    gaussians, deformation = state(), SkinnedDeformation(SkinnedConfig(blend), 3, None, None)
    g = torch.Generator().manual_seed(6)
    rest, turn, shift = (torch.randn(*shape, generator=g) for shape in ((3, 3), (4,), (3,)))
    tracks = torch.stack([rest, quat_rotate(turn.expand(3, 4), rest) + shift])
    deformation.set_keys(torch.tensor([0.0, 1.0]), rest, tracks, turn.expand(2, 3, 4))
    moved = deformation(gaussians, torch.ones(1))
    torch.testing.assert_close(moved.means[0], quat_rotate(turn.expand(12, 4), gaussians.means) + shift)
    own = quat_multiply(turn.expand(12, 4), gaussians.quats)
    torch.testing.assert_close(quat_to_matrix(moved.quats[0]), quat_to_matrix(own), atol=1e-5, rtol=1e-5)


def test_shares_are_a_partition_of_unity_and_follow_the_features() -> None:
    gaussians, deformation = state(), moving()
    shares = deformation.shares(gaussians)
    torch.testing.assert_close(shares.sum(-1), torch.ones(12))
    assert bool((shares > 0).all())
    assert torch.equal(shares.argmax(-1), gaussians.keypoint_logits.argmax(-1))


def test_the_curve_goes_through_the_keys_and_is_smooth_between() -> None:
    deformation = moving()
    shifts, quats = deformation.frames(TIMES)
    expected_shifts, expected_quats = deformation.keys()
    torch.testing.assert_close(shifts, expected_shifts)
    torch.testing.assert_close(quat_to_matrix(quats), quat_to_matrix(expected_quats))
    step = 1e-4
    near = torch.stack([TIMES[1:-1] - step, TIMES[1:-1], TIMES[1:-1] + step], dim=1).double()
    speeds = deformation.double().frames(near.flatten())[0].unflatten(0, (3, 3)).diff(dim=1) / step
    torch.testing.assert_close(speeds[:, 0], speeds[:, 1], atol=0.05, rtol=0.05)


def test_frames_on_a_line_stay_on_it_between_the_keys_and_beyond_them_they_stay() -> None:
    deformation = SkinnedDeformation(SkinnedConfig(), 2, None, None)
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

    def means(logits: Tensor, shifts: Tensor, quats: Tensor) -> tuple[Tensor, Tensor]:
        values = {"shifts": shifts, "quats": quats}
        there = replace(gaussians, keypoint_logits=logits)
        geometry = torch.func.functional_call(deformation, values, (there, torch.tensor([0.1, 0.55]).double()))
        return geometry.means, geometry.quats

    inputs = (gaussians.keypoint_logits, deformation.shifts.detach(), deformation.quats.detach())
    assert torch.autograd.gradcheck(means, [value.clone().requires_grad_() for value in inputs])


def test_a_saved_motion_is_read_back_whatever_its_number_of_keys() -> None:
    saved, gaussians = moving(), state()
    fresh = SkinnedDeformation(SkinnedConfig(), 3, None, None)
    fresh.load_state_dict(saved.state_dict())
    between = torch.linspace(0, 1, 7)
    assert torch.equal(fresh(gaussians, between).means, saved(gaussians, between).means)


def test_what_is_saved_holds_plain_tensors(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("weights") / "motion.pt"
    torch.save(moving().state_dict(), path)
    assert set(torch.load(path, weights_only=True)) == {"rest", "times", "shifts", "quats", "keypoint_offsets"}


def test_edits_of_the_gaussians_take_their_shares_along() -> None:
    model = GaussianModel.from_state(state())
    deformation, mask = moving(), torch.arange(12) % 3 == 0
    before = deformation.shares(model.state())
    duplicate(model, None, mask)
    torch.testing.assert_close(deformation.shares(model.state()), torch.cat([before, before[mask]]))
    remove(model, None, torch.arange(16) >= 12)
    split(model, None, mask, torch.Generator().manual_seed(0))
    halves = before[mask].repeat(2, 1)
    torch.testing.assert_close(deformation.shares(model.state()), torch.cat([before[~mask], halves]))
    assert deformation(model.state(), TIMES).means.shape == (5, 16, 3)


def test_it_needs_keypoints_and_key_times_that_ascend() -> None:
    with pytest.raises(ValueError, match="needs keypoints"):
        build_deformation(DeformationConfig(DeformationKind.SKINNED), 1.0, torch.Generator())
    for wrong in (SkinnedConfig(temperature=0.0), SkinnedConfig(sigma=0.0)):
        with pytest.raises(ValueError, match="positive"):
            SkinnedDeformation(wrong, 3, None, None)
    with pytest.raises(ValueError, match="ascend"):
        moving().set_keys(torch.tensor([0.0, 0.0]), torch.zeros(3, 3), torch.zeros(2, 3, 3), torch.ones(2, 3, 4))
