"""Each form of the flow loss on mixtures whose motion is known."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from kg4d.gaussians.moving import MovingGaussians
from kg4d.geometry.projection import Gaussians2D, project_gaussians
from kg4d.geometry.rotations import quat_multiply, quat_rotate
from kg4d.geometry.sampling import pixel_centers
from kg4d.losses.flow.mixtures import PairedMixtures, true_factors
from kg4d.losses.flow.variants import (
    PixelFlow,
    barycentric_loss,
    component_loss,
    distance_loss,
    mixture_loss,
    offset_loss,
    paired_loss,
    pixel_loss,
    planned_offset_loss,
)
from kg4d.ot.flow_targets import Advected, advect, flow_field
from kg4d.ot.settings import PlanConfig, PlanSolver
from kg4d.render.base import Contributors
from tests import make

SIZE, P, K = 64, 3, 5
SURE = torch.ones(P)
EXACT = PlanConfig(PlanSolver.EXACT)
MOVE = torch.tensor([3.0, -2.0])
TURN = torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])


def random_mixtures(seed: int = 0) -> PairedMixtures:
    """Mixtures at rest: the later Gaussians are the earlier ones."""
    g = torch.Generator().manual_seed(seed)
    factors = 2 * torch.randn(P, K, 2, 2, generator=g)
    still = Gaussians2D(20 + 24 * torch.rand(P, K, 2, generator=g), factors @ factors.mT + 0.3 * torch.eye(2))
    return PairedMixtures(torch.rand(P, K, generator=g).softmax(-1), torch.ones(P), still, still)


def moved(mixtures: PairedMixtures, linear: Tensor, shift: Tensor) -> PairedMixtures:
    """The later Gaussians are the image of the earlier ones under x -> A (x - c) + c + shift, c the image's centre."""
    still, centre = mixtures.earlier, torch.full((2,), SIZE / 2)
    means = (still.means - centre) @ linear.mT + centre + shift
    return replace(mixtures, later=Gaussians2D(means, linear @ still.covs @ linear.mT))


def flow_targets(mixtures: PairedMixtures, linear: Tensor, shift: Tensor) -> Advected:
    """What a dense flow of that same map makes of the earlier Gaussians."""
    away = pixel_centers(SIZE, SIZE) - SIZE / 2
    field = flow_field(away @ linear.mT - away + shift, torch.ones(SIZE, SIZE))
    stacked = Gaussians2D(mixtures.earlier.means[None], mixtures.earlier.covs[None])
    found = advect(stacked, [field])
    return Advected(Gaussians2D(found.targets.means[0], found.targets.covs[0]), found.weights[0])


BY_GAUSSIAN: dict[str, Callable[[PairedMixtures, Advected], Tensor]] = {
    "c": lambda mixtures, targets: component_loss(mixtures, targets, 1.0),
    "d": lambda mixtures, targets: paired_loss(mixtures, targets, 1.0),
    "e": lambda mixtures, targets: mixture_loss(mixtures, targets, 1.0, EXACT),
    "g": lambda mixtures, targets: barycentric_loss(mixtures, targets, 1.0, EXACT),
}
BY_PIXEL: dict[str, Callable[[PairedMixtures, Tensor], Tensor]] = {
    "a": lambda mixtures, flow: offset_loss(mixtures, PixelFlow(flow, SURE), 1.0),
    "a, planned": lambda mixtures, flow: planned_offset_loss(mixtures, PixelFlow(flow, SURE), 1.0, EXACT),
    "b, isotropic": lambda mixtures, flow: pixel_loss(mixtures, None, torch.zeros(P, 2), PixelFlow(flow, SURE), 1.0),
    "x": lambda mixtures, flow: distance_loss(mixtures, PixelFlow(flow, SURE), 1.0, EXACT),
}


@pytest.mark.parametrize("name", BY_GAUSSIAN)
def test_gaussians_that_follow_a_turning_flow_pay_nothing(name: str) -> None:
    small = 0.25 * TURN + 0.75 * torch.eye(2)  # small enough for each to be nearest to its own place before
    mixtures = moved(random_mixtures(), small, MOVE)
    assert BY_GAUSSIAN[name](mixtures, flow_targets(mixtures, small, MOVE)) < 1e-3


@pytest.mark.parametrize("name", BY_GAUSSIAN)
def test_gaussians_that_rest_pay_the_square_of_a_shift(name: str) -> None:
    mixtures = random_mixtures()
    loss = BY_GAUSSIAN[name](mixtures, flow_targets(mixtures, torch.eye(2), MOVE))
    if name == "e":  # the sets may agree better than one by one
        assert 0 < loss <= 13.0 + 1e-3
    else:
        assert float(loss) == pytest.approx(13.0, rel=1e-3)


@pytest.mark.parametrize("name", BY_PIXEL)
def test_pixels_pay_what_the_shift_is_short_of(name: str) -> None:
    mixtures = moved(random_mixtures(), torch.eye(2), MOVE)
    assert BY_PIXEL[name](mixtures, MOVE.expand(P, 2)) < 1e-6
    short = (1 - 0.5) ** 2 * 13.0
    assert float(BY_PIXEL[name](mixtures, 0.5 * MOVE.expand(P, 2))) == pytest.approx(short, rel=1e-3)


def test_which_forms_see_that_the_covariances_did_not_turn() -> None:
    """Centres follow a rotation by 23 degrees, shapes do not: d and e alone object."""
    mixtures = moved(random_mixtures(), TURN, torch.zeros(2))
    stiff = replace(mixtures, later=Gaussians2D(mixtures.later.means, mixtures.earlier.covs))
    targets = flow_targets(mixtures, TURN, torch.zeros(2))
    assert component_loss(stiff, targets, 1.0) < 1e-3
    assert paired_loss(stiff, targets, 1.0) > 0.1
    assert mixture_loss(stiff, targets, 1.0, EXACT) > 0.1
    assert paired_loss(stiff, targets, 1.0, isotropic=True) < 1e-3


def test_e_asks_for_the_set_and_d_for_each() -> None:
    mixtures = random_mixtures()
    swapped = mixtures.later.means.flip(1), mixtures.later.covs.flip(1)
    other = replace(mixtures, weights=torch.full((P, K), 1 / K), later=Gaussians2D(*swapped))
    targets = flow_targets(mixtures, torch.eye(2), torch.zeros(2))
    assert mixture_loss(other, targets, 1.0, EXACT) < 1e-3
    assert barycentric_loss(other, targets, 1.0, EXACT) < 1e-3
    assert paired_loss(other, targets, 1.0) > 1.0


def test_d_is_e_with_the_identity_for_a_plan() -> None:
    """For a motion that is small beside the distances the exact plan is the identity."""
    mixtures = moved(random_mixtures(), torch.eye(2), 0.1 * MOVE)
    targets = flow_targets(mixtures, torch.eye(2), torch.zeros(2))
    torch.testing.assert_close(mixture_loss(mixtures, targets, 1.0, EXACT), paired_loss(mixtures, targets, 1.0))


def test_f_forgets_the_gaussian_that_went_astray() -> None:
    """One of five flies off: eq. 10 pays for it by its weight, the unbalanced plan leaves it behind."""
    mixtures = moved(random_mixtures(), torch.eye(2), MOVE)
    astray = mixtures.later.means.clone()
    astray[:, 0] += 500.0
    mixtures = replace(mixtures, later=Gaussians2D(astray, mixtures.later.covs))
    flow = MOVE.expand(P, 2)
    cheap = PlanConfig(PlanSolver.UNBALANCED, relaxation=0.01)
    dear = PlanConfig(PlanSolver.UNBALANCED, relaxation=1e5, iterations=2000)
    balanced = offset_loss(mixtures, PixelFlow(flow, SURE), 1.0)
    assert planned_offset_loss(mixtures, PixelFlow(flow, SURE), 1.0, cheap) < 0.2 * balanced
    torch.testing.assert_close(
        planned_offset_loss(mixtures, PixelFlow(flow, SURE), 1.0, dear), balanced, rtol=1e-2, atol=0
    )


def test_b_is_exact_for_flat_gaussians_in_any_rigid_motion_of_their_plane() -> None:
    """A picture that turns and shifts in front of the camera: f equals the true flow at the pixel."""
    camera, g = make.cameras(size=SIZE), torch.Generator().manual_seed(3)
    means = torch.rand(40, 3, generator=g) * 0.8 - 0.4
    means[:, 2] = 0
    angles = torch.rand(40, generator=g) * 3
    zero = torch.zeros(40)
    quats = torch.stack([angles.cos(), zero, zero, angles.sin()], -1)
    scales = torch.cat([0.05 + 0.2 * torch.rand(40, 2, generator=g), torch.full((40, 1), 1e-5)], -1)
    turn = torch.tensor([math.cos(0.1), 0.0, 0.0, math.sin(0.1)])
    later = quat_rotate(turn, means) + torch.tensor([0.05, 0.02, 0.0])
    base = make.gaussians(means, quats=quats, scales=scales, opacities=1.0)
    geometry = MovingGaussians(
        base, torch.stack([means, later]), torch.stack([quats, quat_multiply(turn, quats)]), scales.expand(2, -1, -1)
    )
    contributors = Contributors(torch.randint(40, (P, K), generator=g), torch.full((P, K), 1 / K))
    pairs, cameras = torch.tensor([[0, 1]]).expand(P, 2), camera[[0, 0]]
    seen = [
        project_gaussians(m, q, scales, camera.viewmats[0], camera.Ks[0], SIZE, SIZE)
        for m, q in zip(geometry.means, geometry.quats, strict=True)
    ]
    pick = [Gaussians2D(one.means[contributors.ids], one.covs[contributors.ids]) for one in seen]
    mixtures = PairedMixtures(contributors.weights, torch.ones(P), *pick)
    # the plane z = 0 is parallel to the image: world (x, y) are pixels up to one scale and the sign of y
    unit = SIZE / 2 / math.tan(math.radians(49.1 / 2)) / 2
    pixels = SIZE / 2 + 20 * torch.rand(P, 2, generator=g) - 10
    world = torch.cat([(pixels - SIZE / 2) * torch.tensor([1.0, -1.0]) / unit, torch.zeros(P, 1)], -1)
    after = quat_rotate(turn, world) + torch.tensor([0.05, 0.02, 0.0])
    flow = after[:, :2] * torch.tensor([1.0, -1.0]) * unit + SIZE / 2 - pixels
    maps = true_factors(contributors, geometry, pairs, cameras)
    exact = pixel_loss(mixtures, maps, pixels, PixelFlow(flow, SURE), 1.0)
    isotropic = pixel_loss(mixtures, None, pixels, PixelFlow(flow, SURE), 1.0)
    assert exact < 0.02 * isotropic  # what is left is the dilation of 0.3 px²


def test_x_does_not_know_the_direction() -> None:
    mixtures = moved(random_mixtures(), torch.eye(2), MOVE)
    losses = [distance_loss(mixtures, PixelFlow(sign * MOVE.expand(P, 2), SURE), 1.0, EXACT) for sign in (1.0, -1.0)]
    assert max(losses) < 1e-6
    assert float(offset_loss(mixtures, PixelFlow(-MOVE.expand(P, 2), SURE), 1.0)) == pytest.approx(4 * 13.0, rel=1e-4)


@pytest.mark.parametrize("name", [*BY_PIXEL, *BY_GAUSSIAN])
def test_uncovered_pixels_and_unknown_flow_do_not_count(name: str) -> None:
    mixtures = moved(random_mixtures(), torch.eye(2), MOVE)
    empty = replace(
        mixtures, covered=torch.tensor([1.0, 0.0, 1.0]), weights=mixtures.weights * torch.eye(3)[:, [1]].ne(1)
    )
    empty.later.means.requires_grad_()
    if name in BY_PIXEL:
        flow = torch.stack([MOVE, torch.full((2,), torch.nan), MOVE])
        loss = BY_PIXEL[name](empty, flow)
    else:
        targets = flow_targets(mixtures, torch.eye(2), MOVE)
        loss = BY_GAUSSIAN[name](empty, targets._replace(weights=targets.weights * torch.tensor([[1.0], [1.0], [0.0]])))
    loss.backward()
    assert loss < 1e-5
    assert empty.later.means.grad is not None
    assert empty.later.means.grad.isfinite().all()
    assert empty.later.means.grad[1].abs().sum() == 0


@pytest.mark.parametrize("name", ["a", "b, isotropic", "c", "d", "g"])
def test_gradients(name: str) -> None:
    """Where no plan changes with the means, the gradient is that of the value."""
    mixtures = random_mixtures()
    wide = Gaussians2D(*(part.double() for part in mixtures.earlier))
    targets = flow_targets(mixtures, TURN, MOVE)
    double = Advected(Gaussians2D(*(part.double() for part in targets.targets)), targets.weights.double())

    def loss(means: Tensor, covs: Tensor) -> Tensor:
        later = PairedMixtures(mixtures.weights.double(), torch.ones(P).double(), wide, Gaussians2D(means, covs))
        if name in BY_PIXEL:
            return BY_PIXEL[name](later, MOVE.double().expand(P, 2)) + 0 * covs.sum()
        return BY_GAUSSIAN[name](later, double) + 0 * covs.sum()

    assert gradcheck(loss, (wide.means.clone().requires_grad_(), wide.covs.clone().requires_grad_()))
