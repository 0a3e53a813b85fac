import math
from dataclasses import replace

import pytest
import torch

from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.losses.flow import settings
from kg4d.losses.flow.mixtures import PairedMixtures, paired_mixtures, there_too
from kg4d.losses.flow.observations import ObservedPairs, RenderedModel, keypoint_motion, random_flow_pixels
from kg4d.losses.flow.settings import SAME_GAUSSIANS, ContributorSelection, FlowSource, WgfConfig, WgfVariant
from kg4d.losses.flow.variants import PixelFlow, offset_loss, paired_loss
from kg4d.losses.flow.wgf import WgfTerm, wgf_losses
from kg4d.ot.flow_targets import advect, flow_field
from kg4d.ot.settings import ContributorWeights, PlanConfig, PlanSolver
from kg4d.render.base import Contributors, RasterOptions
from kg4d.render.build import build_renderer
from tests import make

SIZE = 64


def camera() -> Cameras:
    return make.cameras(size=SIZE)


def flat_state(count: int = 60) -> GaussianState:
    """Gaussians in the plane z = 0, where a shift is the same number of px everywhere."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(count, 3, generator=generator) * 0.8 - 0.4
    means[:, 2] = 0
    scales = 0.03 + 0.03 * torch.rand(count, 3, generator=generator)
    return make.gaussians(means, scales=scales, opacities=0.6, colors=torch.rand(count, 3, generator=generator))


def mixtures_of(state: GaussianState, later: torch.Tensor, pixels: torch.Tensor) -> PairedMixtures:
    renderer, view = build_renderer("reference"), camera()
    output = renderer(state, view)
    found = renderer.contributors(output, torch.zeros(len(pixels), dtype=torch.int64), pixels, 20)
    geometry = MovingGaussians(
        state, torch.stack([state.means, later]), state.quats.expand(2, -1, -1), state.scales.expand(2, -1, -1)
    )
    pairs = torch.tensor([[0, 1]]).expand(len(pixels), 2)
    return paired_mixtures(found, state.opacities, geometry, pairs, view[[0, 0]], ContributorWeights.CONTRIBUTION)


def paired(mixtures: PairedMixtures, flow: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    one = mixtures.of_each(1)
    return paired_loss(one, advect(one.earlier, [flow_field(flow, weights)]), float(SIZE))


PIXELS = torch.tensor([[30.0, 30.0], [36.0, 28.0], [25.5, 33.5]])
PX_PER_UNIT = SIZE / 2 / math.tan(math.radians(49.1 / 2)) / 2


def test_a_still_model_pays_the_whole_flow() -> None:
    state = flat_state()
    flow = torch.tensor([[3.0, 4.0]]).repeat(3, 1)
    loss = offset_loss(mixtures_of(state, state.means, PIXELS), PixelFlow(flow, torch.ones(3)), float(SIZE))
    assert torch.allclose(loss, torch.tensor(25.0 / SIZE**2), rtol=1e-4)


def test_a_model_that_moves_with_the_flow_pays_nothing_in_either_part() -> None:
    state = flat_state()
    shift_px = torch.tensor([5.0, -3.0])
    later = state.means + torch.tensor([shift_px[0], -shift_px[1], 0.0]) / PX_PER_UNIT  # world +Y is up
    mixtures = mixtures_of(state, later, PIXELS)
    assert offset_loss(mixtures, PixelFlow(shift_px.expand(3, 2), torch.ones(3)), float(SIZE)) < 1e-8
    assert paired(mixtures, shift_px.expand(SIZE, SIZE, 2), torch.ones(SIZE, SIZE)) < 1e-6


def test_only_the_paired_part_sees_a_rotation_about_the_pixel() -> None:
    """The offset of a mixture is blind to everything but translation; variant D is why there is a second part."""
    state = flat_state()
    mixtures = mixtures_of(state, state.means, PIXELS[:1])
    centre = (mixtures.weights[..., None] * mixtures.earlier.means).sum(1)[0]
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    away = torch.stack([columns, rows], dim=-1) - centre
    angle = math.radians(20)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert offset_loss(mixtures, PixelFlow(torch.zeros(1, 2), torch.ones(1)), float(SIZE)) < 1e-9  # still, and content
    assert paired(mixtures, away @ turn.T - away, torch.ones(SIZE, SIZE)) > 1e-5


def test_empty_pixels_and_unknown_flow_do_not_count() -> None:
    state = flat_state()
    corner = torch.tensor([[1.0, 1.0]])
    later = (state.means + 0.05).requires_grad_()
    mixtures = mixtures_of(state, later, torch.cat([corner, PIXELS]))
    assert mixtures.covered.tolist() == [0, 1, 1, 1]
    nan = torch.full((1, 2), torch.nan)
    motion = torch.cat([nan, torch.zeros(3, 2)])
    loss = offset_loss(mixtures, PixelFlow(motion, torch.ones(4)), float(SIZE))
    nothing = paired(mixtures, torch.zeros(SIZE, SIZE, 2), torch.zeros(SIZE, SIZE))
    (loss + nothing).backward()
    assert loss > 0
    assert nothing == 0
    assert later.grad is not None
    assert later.grad.isfinite().all()


class Batch:
    """Three frames of which the model moves by (2, 0) and then by (0, 3) px; a flow of the first pair says (5, 0)."""

    def __init__(self) -> None:
        self.state, self.view, self.renderer = flat_state(), camera(), build_renderer("reference")
        shifts = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, -3.0, 0.0]]) / PX_PER_UNIT
        self.geometry = MovingGaussians(
            self.state,
            self.state.means + shifts[:, None],
            self.state.quats.expand(3, -1, -1),
            self.state.scales.expand(3, -1, -1),
        )
        self.output = self.renderer.frames(self.geometry, self.view[[0, 0, 0]])
        flows = torch.tensor([[5.0, 0.0], [0.0, 0.0]])[:, None, None].expand(2, SIZE, SIZE, 2)
        self.fields = [flow_field(flow, torch.ones(SIZE, SIZE)) for flow in flows]

    def losses(self, config: WgfConfig, keypoints: torch.Tensor = PIXELS, count: int = 2) -> dict[str, WgfTerm]:
        model = RenderedModel(self.renderer, self.output, self.geometry)
        observed = ObservedPairs(
            frames=torch.tensor([[0, 1], [1, 2]])[:count],
            cameras=self.view[[0, 0, 0]],
            keypoints=keypoints.expand(3, -1, -1),
            weights=torch.ones(3, len(keypoints)),
            fields=self.fields[:count],
        )
        return wgf_losses(config, model, observed, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("variant", WgfVariant)
def test_the_pairs_of_a_batch_count_together(variant: WgfVariant) -> None:
    """The first pair is 3 px short of the flow, the second 3 px beyond it."""
    terms = Batch().losses(WgfConfig(variant=variant, plan=PlanConfig(iterations=50)))
    assert len(terms) == (2 if variant is WgfVariant.OFFSET_AND_PAIRED else 1)
    for term in terms.values():
        torch.testing.assert_close(term.value, torch.tensor(9.0 / SIZE**2), rtol=4e-2, atol=0)
    assert {term.weight for term in terms.values()} == (
        {1.0, 0.5} if variant is WgfVariant.OFFSET_AND_PAIRED else {1.0}
    )


FORMS = [  # every form of every variant
    WgfConfig(variant=variant, isotropic=isotropic, selection=selection, plan=PlanConfig(iterations=50))
    for variant in WgfVariant
    for isotropic in (False, True)
    for selection in ContributorSelection
    if selection is ContributorSelection.TRACKED or variant not in SAME_GAUSSIANS
]


def gradients(batch: Batch, config: WgfConfig, count: int = 2) -> dict[str, torch.Tensor]:
    """Of the loss, by the centres, rotations and scales of all frames."""
    moved = {
        name: getattr(batch.geometry, name).detach().clone().requires_grad_() for name in ("means", "quats", "scales")
    }
    batch.geometry = replace(batch.geometry, **moved)
    sum(term.value for term in batch.losses(config, count=count).values()).backward()
    return {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in moved.items()}


@pytest.mark.parametrize("config", FORMS, ids=lambda c: f"{c.variant}-{c.selection}-{c.isotropic}")
def test_a_pair_whose_flow_is_not_known_does_not_count(config: WgfConfig) -> None:
    batch = Batch()
    batch.fields[1] = flow_field(torch.full((SIZE, SIZE, 2), 7.0), torch.zeros(SIZE, SIZE))
    together, alone = batch.losses(config), batch.losses(config, count=1)
    assert together.keys() == alone.keys()
    for name, term in together.items():
        torch.testing.assert_close(term.value, alone[name].value)
    pulls, expected = gradients(batch, config), gradients(batch, config, count=1)
    for name, pull in pulls.items():  # nor does its NaN reach what moves
        assert pull.isfinite().all(), name
        torch.testing.assert_close(pull, expected[name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("config", FORMS, ids=lambda c: f"{c.variant}-{c.selection}-{c.isotropic}")
@pytest.mark.parametrize("at_keypoints", [True, False])
def test_without_any_known_flow_there_is_no_pull(config: WgfConfig, at_keypoints: bool) -> None:
    batch = Batch()
    batch.fields = [flow_field(torch.full((SIZE, SIZE, 2), 7.0), torch.zeros(SIZE, SIZE))] * 2
    config = replace(config, at_keypoints=at_keypoints)
    if not batch.losses(config):  # it looks at keypoints only
        return
    assert all((pull == 0).all() for pull in gradients(batch, config).values())


def test_a_doubtful_flow_counts_as_much_as_it_is_trusted() -> None:
    pixels, weights = PIXELS.expand(1, 2, -1, -1), torch.full((1, 2, len(PIXELS)), 0.5)
    doubtful = flow_field(torch.zeros(SIZE, SIZE, 2), torch.full((SIZE, SIZE), 0.4))
    _, confidence = keypoint_motion(FlowSource.DENSE, pixels, weights, [doubtful])
    torch.testing.assert_close(confidence, torch.full((1, len(PIXELS)), 0.1))


@pytest.mark.parametrize("variant", WgfVariant)
def test_without_keypoints_the_random_pixels_remain(variant: WgfVariant) -> None:
    batch, config = Batch(), WgfConfig(variant=variant, at_keypoints=False, plan=PlanConfig(iterations=50))
    terms = batch.losses(config, PIXELS[:0])
    values = [term.value for name, term in terms.items() if name != "offset"]
    if variant in (WgfVariant.OFFSET, WgfVariant.RELAXED_OFFSET, WgfVariant.DISTANCE):  # these look at keypoints only
        assert values == []
    else:
        torch.testing.assert_close(values, [torch.tensor(9.0 / SIZE**2)], rtol=4e-2, atol=0)


def test_eq_10_as_printed_is_the_closed_form_by_every_balanced_solver() -> None:
    batch = Batch()
    closed = batch.losses(WgfConfig(variant=WgfVariant.OFFSET))["offset"].value
    for solver in (PlanSolver.SINKHORN, PlanSolver.EXACT):
        for isotropic in (False, True):
            config = WgfConfig(
                variant=WgfVariant.OFFSET,
                explicit_plan=True,
                isotropic=isotropic,
                plan=PlanConfig(solver, iterations=50),
            )
            torch.testing.assert_close(batch.losses(config)["offset"].value, closed, rtol=1e-3, atol=0)


def test_a_set_that_is_looked_up_anew_follows_the_pixel_not_the_motion() -> None:
    """The second pair's model moves by 3 px and its pixel by none; anew, the offset is (nearly) that of the pixel."""
    batch = Batch()
    tracked, fresh = (
        batch.losses(WgfConfig(variant=WgfVariant.OFFSET, selection=selection))["offset"].value
        for selection in ContributorSelection
    )
    assert fresh < 0.5 * tracked


@pytest.mark.parametrize(
    "variant",
    [WgfVariant.OFFSET, WgfVariant.MIXTURE, WgfVariant.RELAXED_OFFSET, WgfVariant.BARYCENTRIC, WgfVariant.DISTANCE],
)
def test_sets_that_are_looked_up_anew_have_finite_gradients(variant: WgfVariant) -> None:
    batch = Batch()
    batch.geometry.means.requires_grad_()
    keypoints = torch.cat([PIXELS, torch.tensor([[1.0, 1.0]])])  # the last sees nothing
    config = WgfConfig(variant=variant, selection=ContributorSelection.FRESH, plan=PlanConfig(iterations=20))
    sum(term.value for term in batch.losses(config, keypoints).values()).backward()
    assert batch.geometry.means.grad is not None
    assert batch.geometry.means.grad.isfinite().all()


@pytest.mark.parametrize(
    "variant", [WgfVariant.OFFSET_AND_PAIRED, WgfVariant.PIXEL, WgfVariant.CENTRES, WgfVariant.PAIRED]
)
def test_variants_that_ask_who_is_who_refuse_another_set(variant: WgfVariant) -> None:
    with pytest.raises(ValueError, match=r"wgf\.selection"):
        WgfConfig(variant=variant, selection=ContributorSelection.FRESH)


@pytest.mark.parametrize("plan", [PlanConfig(epsilon=0.0), PlanConfig(relaxation=-1.0), PlanConfig(iterations=0)])
def test_plans_that_cannot_be_are_refused(plan: PlanConfig) -> None:
    with pytest.raises(ValueError, match=r"wgf\.plan"):
        WgfConfig(plan=plan)


def test_the_exact_solver_asks_for_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"wgf\.plan\.solver.*kg4d\[exact\]"):
        WgfConfig(plan=PlanConfig(PlanSolver.EXACT))


def test_random_pixels_lie_where_the_flow_is_known() -> None:
    known = torch.zeros(20, 30)
    known[4:7, 11:13] = 1
    flow = torch.zeros(20, 30, 2)
    drawn = random_flow_pixels(flow_field(flow, known), 50, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 2)
    assert ((drawn - torch.tensor([12.0, 5.5])).abs() <= torch.tensor([0.5, 1.0])).all()
    nowhere = random_flow_pixels(flow_field(flow, torch.zeros(20, 30)), 50, torch.Generator())
    assert nowhere.shape == (50, 2)
    assert nowhere.isnan().all()


def test_motion_comes_from_the_flow_or_from_the_keypoints() -> None:
    pixels = torch.tensor([[[5.0, 5.0], [10.0, 5.0], [0.0, 0.0]], [[7.0, 5.0], [10.0, 9.0], [1.0, 1.0]]])
    weights = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    flow = torch.zeros(16, 16, 2)
    flow[..., 0] = 2.0
    known = torch.ones(16, 16)
    known[:, 9:] = 0
    motion, confidence = (
        found[0] for found in keypoint_motion(FlowSource.DENSE, pixels[None], weights[None], [flow_field(flow, known)])
    )
    assert torch.allclose(motion[0], torch.tensor([2.0, 0.0]))
    assert confidence.tolist() == [1.0, 0.0, 0.0]  # the second lies where the flow is not known, the third is not seen
    motion, confidence = (
        found[0]
        for found in keypoint_motion(FlowSource.KEYPOINTS, pixels[None], weights[None], [flow_field(flow, known)])
    )
    assert motion[:2].tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert confidence.tolist() == [1.0, 0.5, 0.0]
    without, _ = keypoint_motion(FlowSource.DENSE, pixels[None], weights[None], None)
    assert torch.equal(without[0, :2], motion[:2])


@pytest.mark.parametrize("eps2d", [0.3, 5.0])
def test_mixtures_are_as_blurred_as_the_render(eps2d: float) -> None:
    """One round Gaussian that doubles its size: W2² = 2 (sigma' - sigma)², each sigma² with the render's own eps2d."""
    size, renderer, view = 0.08, build_renderer("reference"), camera()
    state = make.gaussians(torch.zeros(1, 3), scales=size)
    geometry = replace(MovingGaussians.still(state, 2), scales=torch.stack([state.scales, 2 * state.scales]))
    rules = RasterOptions(eps2d=eps2d)
    output = renderer.frames(geometry, view[[0, 0]], options=rules)
    still = flow_field(torch.zeros(SIZE, SIZE, 2), torch.ones(SIZE, SIZE))
    keypoints = torch.full((2, 1, 2), SIZE / 2)
    term = wgf_losses(
        WgfConfig(variant=WgfVariant.PAIRED),
        RenderedModel(renderer, output, geometry),
        ObservedPairs(torch.tensor([[0, 1]]), view[[0, 0]], keypoints, torch.ones(2, 1), [still]),
        torch.Generator().manual_seed(0),
    )["paired"]
    before, after = (math.hypot(factor * size * PX_PER_UNIT, math.sqrt(eps2d)) for factor in (1, 2))
    torch.testing.assert_close(term.value, torch.tensor(2 * (after - before) ** 2 / SIZE**2), rtol=1e-4, atol=0)


def test_contributors_that_are_gone_at_the_other_frame_are_padding() -> None:
    base = make.random_gaussians(3)
    still = MovingGaussians.still(base, 2)
    found = Contributors(torch.tensor([[0, 2, -1]]), torch.tensor([[0.5, 0.3, 0.0]]))
    assert there_too(found, still, torch.tensor([1])) is found
    fading = replace(still, opacities=torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.0]]))
    kept = there_too(found, fading, torch.tensor([1]))
    assert kept.ids.tolist() == [[0, -1, -1]]
    assert torch.equal(kept.weights, torch.tensor([[0.5, 0.0, 0.0]]))
    assert torch.equal(there_too(found, fading, torch.tensor([0])).ids, found.ids)
