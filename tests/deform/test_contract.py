"""What every deformation promises. A new kind is one more entry in CONFIGS."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kg4d.data.records import VideoFeatures
from kg4d.deform.base import Deformation, RestGaussians
from kg4d.deform.build import build_deformation
from kg4d.deform.flag4d import STATE
from kg4d.deform.settings import (
    Activation,
    Blend,
    ControlPointsConfig,
    DeformationConfig,
    DeformationKind,
    Flag4dConfig,
    HexPlaneConfig,
    SkinnedConfig,
)
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.keypoints.motion import KeypointMotion
from kg4d.optim.objective import Objective
from tests import make

PLANES = HexPlaneConfig(resolution=6, time_resolution=4, channels=3)
FLAG = Flag4dConfig(summary_width=6, feature_width=8, heads=2, anchors=5, neighbours=2, refinement_width=12)
CONFIGS = {
    "hse": DeformationConfig(width=16, depth=3),
    "hse, free first frame": DeformationConfig(width=16, depth=2, anchor_first=False),
    "hse, one layer, silu": DeformationConfig(width=16, depth=1, activation=Activation.SILU),
    "hexplane": DeformationConfig(DeformationKind.HEXPLANE, width=16, depth=2, hexplane=PLANES),
    "hexplane alone": DeformationConfig(
        DeformationKind.HEXPLANE, width=16, depth=2, hexplane=replace(PLANES, use_hse=False)
    ),
    "skinned": DeformationConfig(DeformationKind.SKINNED),
    "skinned, dual quaternions and residual": DeformationConfig(
        DeformationKind.SKINNED, width=16, depth=2, skinned=SkinnedConfig(Blend.DUAL_QUATERNION, residual=True)
    ),
    "skinned, shaded": DeformationConfig(DeformationKind.SKINNED, skinned=SkinnedConfig(shading=True)),
    "skinned, shaded, residual": DeformationConfig(
        DeformationKind.SKINNED, width=16, depth=2, skinned=SkinnedConfig(residual=True, shading=True)
    ),
    "control points": DeformationConfig(
        DeformationKind.CONTROL_POINTS, width=16, depth=2, control_points=ControlPointsConfig(5, 3)
    ),
    "flag4d": DeformationConfig(DeformationKind.FLAG4D, width=16, depth=2, flag4d=replace(FLAG, idn=True)),
    "flag4d as printed, free first frame": DeformationConfig(
        DeformationKind.FLAG4D, width=16, depth=2, anchor_first=False, flag4d=replace(FLAG, residual=False)
    ),
    "flag4d without IDN": DeformationConfig(DeformationKind.FLAG4D, width=16, depth=2, flag4d=replace(FLAG, idn=False)),
    "flag4d without GMN": DeformationConfig(DeformationKind.FLAG4D, width=16, depth=2, flag4d=replace(FLAG, gmn=False)),
    "none": DeformationConfig(DeformationKind.NONE),
}
ADDING = [
    name
    for name, config in CONFIGS.items()
    if config.kind not in (DeformationKind.SKINNED, DeformationKind.CONTROL_POINTS)
]
SEEDED = [name for name in CONFIGS if name not in ("none", "skinned", "skinned, shaded")]
LEARNED = [name for name in CONFIGS if name != "none"]
TIMES = torch.tensor([0.0, 0.3, 0.5, 1.0])
SOON = 1e-6  # of the clip


def gaussians(count: int = 9) -> GaussianState:
    return make.random_gaussians(count, keypoints=2, spread=0.4, seed=1)


REST = RestGaussians(gaussians().means, radius=0.8, keypoints=2)


def build(name: str, seed: int = 0) -> Deformation:
    deformation = build_deformation(CONFIGS[name], REST, torch.Generator().manual_seed(seed))
    if deformation.wants_video:
        shape = 5, VideoFeatures.CHANNELS, 3, 4
        maps = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        deformation.watch(VideoFeatures(maps, torch.linspace(0, 1, 5)))
    return deformation


def trained(name: str) -> Deformation:
    """One whose outputs are not zero."""
    return scrambled(build(name))


def scrambled(module: Deformation) -> Deformation:
    for key, parameter in module.named_parameters():
        std = 1.0 if key.startswith("planes") else 0.3  # products of six small numbers would hardly depend on time
        nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(2))
    return module


def parts(moving: MovingGaussians) -> list[Tensor]:
    moved = [moving.means, moving.quats, moving.scales]
    optional = moving.colors, moving.opacities
    return moved + [part for part in optional if part is not None]


@pytest.mark.parametrize("name", CONFIGS)
def test_identity_at_birth_at_every_time(name: str) -> None:
    state, deformation = gaussians(), build(name)
    moved = deformation(state, TIMES)
    for ours, canonical in zip(parts(moved), (state.means, state.quats, state.scales), strict=False):
        assert torch.equal(ours, canonical.expand(4, -1, -1))
    assert torch.equal(moved.at(2).colors, state.colors)


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_reach_every_parameter(name: str) -> None:
    deformation = trained(name)
    drawn = parts(deformation(gaussians(), TIMES))
    draft = deformation.draft()
    if draft is not None:
        drawn += [*parts(draft.moving), draft.apart]
    sum(part.square().sum() for part in drawn).backward()
    biases = [(key, len(bias)) for key, bias in deformation.named_parameters() if key.endswith("bias")]
    constant = [key for key, _ in biases[-1:]] + [key for key, size in biases if size == STATE]
    for key, parameter in deformation.named_parameters():
        assert parameter.grad is not None, key
        cancels = key in constant and CONFIGS[name].anchor_first  # what is added at time 0 too moves nothing
        assert cancels or parameter.grad.abs().sum() > 0, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", LEARNED)
def test_it_learns_from_birth(name: str) -> None:
    """Zero output layers must not be a point that gradient descent cannot leave."""
    state, deformation = gaussians(), build(name)
    optimizer = torch.optim.Adam(deformation.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        means = deformation(state, TIMES).means
        loss = (means - state.means - 0.3 * TIMES[:, None, None]).square().mean()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_seed_decides_and_the_global_one_does_not(name: str) -> None:
    state = torch.get_rng_state()
    first = build(name)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    same, other = build(name), build(name, seed=1)
    weights = [torch.cat([p.flatten() for p in m.parameters()] or [torch.zeros(1)]) for m in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2]) == (name not in SEEDED)


@pytest.mark.parametrize("name", CONFIGS)
def test_order_of_gaussians_and_of_times_does_not_matter(name: str) -> None:
    state, deformation = gaussians(), trained(name)
    order, times = torch.randperm(len(state)), torch.tensor([2, 0, 3, 1])
    permuted = state.map(lambda rows: rows[order])
    moved = zip(parts(deformation(state, TIMES)), parts(deformation(permuted, TIMES[times])), strict=True)
    for ours, theirs in moved:
        torch.testing.assert_close(theirs, ours[times][:, order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_frame_is_canonical_where_it_is_anchored(name: str) -> None:
    state, deformation = gaussians(), trained(name)
    still = all(torch.equal(part[0], getattr(state, field)) for part, field in named(deformation(state, TIMES)))
    still = still and torch.equal(deformation(state, TIMES).at(0).colors, state.colors)
    assert still == CONFIGS[name].anchor_first
    if name != "none":
        assert not torch.allclose(deformation(state, TIMES).means[1], state.means, atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_motion_does_not_jump_as_it_starts(name: str) -> None:
    """Nor anywhere else: soon after a time everything is where it was."""
    state, deformation = gaussians(), trained(name)
    now, soon = (parts(deformation(state, times)) for times in (TIMES, (TIMES + SOON).clamp_max(1.0)))
    for before, after in zip(now, soon, strict=True):
        torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def named(geometry: MovingGaussians) -> list[tuple[Tensor, str]]:
    return [(getattr(geometry, name), name) for name in ("means", "quats", "scales")]


@pytest.mark.parametrize("name", ADDING)
def test_canonical_geometry_gets_gradients_by_addition_only(name: str) -> None:
    """The positions that a network reads are detached: the Jacobian of the moved centres is the identity.

    Frames turn the centres; there the Jacobian is that of the blended motion.
    """
    state = gaussians(3)
    state.means.requires_grad_()
    (gradient,) = torch.autograd.grad(trained(name)(state, TIMES).means[2].sum(), state.means)
    torch.testing.assert_close(gradient, torch.ones(3, 3))


@pytest.mark.parametrize("name", LEARNED)
def test_the_number_of_gaussians_is_not_in_the_weights(name: str) -> None:
    deformation = trained(name)
    many, few = deformation(gaussians(9), TIMES), deformation(gaussians(1), TIMES[:1])
    assert many.means.shape == (4, 9, 3)
    assert few.quats.shape == (1, 1, 4)


def test_every_kind_is_here() -> None:
    assert {config.kind for config in CONFIGS.values()} == set(DeformationKind)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_has_one_group_and_a_learning_rate(name: str) -> None:
    deformation = build(name)
    grouped = [parameter for group in deformation.parameter_groups() for parameter in group.parameters]
    assert sorted(map(id, grouped)) == sorted(map(id, deformation.parameters()))
    assert all(group.learning_rate > 0 for group in deformation.parameter_groups() if group.parameters)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_starts_at_known_keypoints_and_its_priors_do_not_disturb_rest(name: str) -> None:
    """Without a motion to start at nothing moves, and no prior pulls; keypoints that it knows are where they were."""
    state, deformation = gaussians(), build(name)
    rest = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    known = torch.ones(2, dtype=torch.bool)
    deformation.start(KeypointMotion(TIMES, rest, rest.expand(4, 2, 3), torch.tensor([-1, 0]), known))
    logits = deformation.skinning_logits(state.means)
    assert (logits is None) == (CONFIGS[name].kind is not DeformationKind.SKINNED)
    moved = deformation(state if logits is None else replace(state, skinning_logits=logits), TIMES)
    torch.testing.assert_close(moved.means, state.means.expand(4, -1, -1))
    keypoints = deformation.keypoints(TIMES)
    assert keypoints is None or torch.equal(keypoints, rest.expand(4, 2, 3))
    objective = Objective(progress=0.5)
    deformation.regularisers(objective, TIMES)
    assert all(float(term) < 1e-9 for term in objective.terms.values())


@pytest.mark.parametrize(
    "bad",
    [
        DeformationConfig(depth=0),
        DeformationConfig(width=0),
        replace(CONFIGS["hexplane"], hexplane=HexPlaneConfig(levels=[])),
        DeformationConfig(DeformationKind.CONTROL_POINTS),
    ],
)
def test_sizes_that_cannot_be_are_refused(bad: DeformationConfig) -> None:
    with pytest.raises(ValueError, match="at least one"):
        build_deformation(bad, RestGaussians(torch.zeros(0, 3), 1.0), torch.Generator())


@pytest.mark.parametrize("kind", [DeformationKind.HSE, DeformationKind.HEXPLANE, DeformationKind.FLAG4D])
def test_isotropic_gaussians_stay_so(kind: DeformationKind) -> None:
    config = DeformationConfig(kind, width=16, depth=2, hexplane=PLANES)
    generator = torch.Generator().manual_seed(0)
    deformation = scrambled(build_deformation(config, replace(REST, isotropic=True), generator))
    state = gaussians()
    ratio = deformation(state, TIMES).scales / state.scales
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), atol=1e-5)
    assert (ratio[1:] - 1).abs().max() > 1e-3
