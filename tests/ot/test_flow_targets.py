import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.projection import Gaussians2D
from kg4d.geometry.sampling import pixel_centers
from kg4d.ot.flow_targets import Advected, advect, barycentric_map, flow_field, flow_jacobian, true_factor_map
from kg4d.ot.gaussian_w2 import gaussian_w2
from kg4d.ot.sinkhorn import sinkhorn_rounded

HEIGHT, WIDTH = 20, 28
TURN = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
AFFINE = torch.tensor([[0.1, -0.2], [0.3, 0.05]])  # dF/dx


def affine_flow(gradient: torch.Tensor = AFFINE) -> torch.Tensor:
    return pixel_centers(HEIGHT, WIDTH) @ gradient.mT + torch.tensor([1.5, -2.0])


def splats(*centers: tuple[float, float]) -> Gaussians2D:
    covs = torch.tensor([[3.0, 0.5], [0.5, 1.0]]).expand(len(centers), 2, 2)
    return Gaussians2D(torch.tensor(centers), covs)


def test_jacobian_of_an_affine_flow_is_its_matrix_away_from_the_border() -> None:
    jacobian = flow_jacobian(affine_flow(), torch.ones(HEIGHT, WIDTH))
    torch.testing.assert_close(jacobian[2:-2, 2:-2], AFFINE.expand(HEIGHT - 4, WIDTH - 4, 2, 2), atol=1e-5, rtol=0)
    border = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert (jacobian[border] == 0).all()


def test_jacobian_is_zero_around_every_invalid_pixel_and_reads_none() -> None:
    weights, flow = torch.ones(HEIGHT, WIDTH), affine_flow()
    weights[10, 12] = 0.0
    flow[10, 12] = 1e6
    jacobian = flow_jacobian(flow, weights)
    assert (jacobian[8:13, 10:15] == 0).all()
    torch.testing.assert_close(jacobian[10, 15], AFFINE, atol=1e-5, rtol=0)
    torch.testing.assert_close(jacobian[13, 12], AFFINE, atol=1e-5, rtol=0)


def test_jacobian_is_that_of_the_flow_averaged_over_3_by_3() -> None:
    impulse = torch.zeros(HEIGHT, WIDTH, 2)
    impulse[10, 14, 0] = 1.8
    jacobian = flow_jacobian(impulse, torch.ones(HEIGHT, WIDTH))
    expected = 0.1 * torch.tensor([0.0, 1.0, 1.0, 0.0, -1.0, -1.0, 0.0])  # a box of 3 x 0.2, differenced over 2
    torch.testing.assert_close(jacobian[10, 11:18, 0, 0], expected)
    torch.testing.assert_close(jacobian[7:14, 13, 0, 1], expected)


def test_jacobian_is_clamped() -> None:
    steep = flow_jacobian(affine_flow(4 * AFFINE), torch.ones(HEIGHT, WIDTH))
    expected = torch.tensor([[0.4, -0.5], [0.5, 0.2]])
    torch.testing.assert_close(steep[10, 14], expected, atol=1e-5, rtol=0)


def carried(start: Gaussians2D, flow: torch.Tensor, weights: torch.Tensor) -> Advected:
    found = advect(Gaussians2D(start.means[None], start.covs[None]), [flow_field(flow, weights)])
    return Advected(Gaussians2D(found.targets.means[0], found.targets.covs[0]), found.weights[0])


def test_each_flow_carries_its_own() -> None:
    starts = [splats((10.2, 9.7), (15.0, 12.5)), splats((4.0, 8.0), (20.5, 15.5))]
    flows, weights = [affine_flow(), affine_flow(-AFFINE)], torch.ones(HEIGHT, WIDTH)
    joined = Gaussians2D(*(torch.stack(both) for both in zip(*starts, strict=True)))
    together = advect(joined, [flow_field(flow, weights) for flow in flows])
    for q, (start, flow) in enumerate(zip(starts, flows, strict=True)):
        alone = carried(start, flow, weights)
        assert (together.targets.means[q] == alone.targets.means).all()
        assert (together.targets.covs[q] == alone.targets.covs).all()


def test_advection_by_an_affine_flow_is_the_affine_map() -> None:
    flow, weights = affine_flow(), torch.ones(HEIGHT, WIDTH)
    start = splats((10.2, 9.7), (15.0, 12.5))
    targets, valid = carried(start, flow, weights)
    linear = torch.eye(2) + AFFINE
    torch.testing.assert_close(targets.means, start.means @ linear.mT + torch.tensor([1.5, -2.0]))
    torch.testing.assert_close(targets.covs, linear @ start.covs @ linear.mT)
    assert valid.tolist() == pytest.approx([1.0, 1.0])


def test_advection_without_flow_changes_nothing() -> None:
    start, weights = splats((3.0, 4.0), (20.5, 15.5)), torch.ones(HEIGHT, WIDTH)
    flow = torch.zeros(HEIGHT, WIDTH, 2)
    targets, _ = carried(start, flow, weights)
    torch.testing.assert_close(targets, start)
    assert gaussian_w2(*targets, *start).abs().max() < 1e-6


def test_validity_asks_for_all_four_pixels_inside_the_image() -> None:
    weights = torch.full((HEIGHT, WIDTH), 0.8)
    weights[:, 14:] = 0.0
    flow = affine_flow()
    start = splats((13.4, 10.0), (13.6, 10.0), (20.0, 10.0), (-1.0, 10.0), (5.0, 25.0))
    _, valid = carried(start, flow, weights)
    assert valid.tolist() == pytest.approx([0.8, 0.0, 0.0, 0.0, 0.0])


def test_a_field_lists_the_pixels_whose_flow_is_known() -> None:
    weights = torch.zeros(HEIGHT, WIDTH)
    weights[3, 5], weights[4, 2] = 0.5, 1.0
    field = flow_field(affine_flow(), weights)
    assert field.known.tolist() == [[5.5, 3.5], [2.5, 4.5]]
    assert field.values.shape == (HEIGHT, WIDTH, 8)


def test_targets_are_detached() -> None:
    means = torch.tensor([[5.0, 5.0]], requires_grad=True)
    flow, weights = affine_flow(), torch.ones(HEIGHT, WIDTH)
    targets, valid = carried(Gaussians2D(means, torch.eye(2)[None]), flow, weights)
    assert not any(x.requires_grad for x in (*targets, valid))


@given(st.integers(0, 2**31))
def test_true_factor_of_an_affine_motion_is_its_matrix(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    factor = 5 * torch.randn(4, 2, 3, generator=g, dtype=torch.float64)
    linear = torch.randn(4, 2, 2, generator=g, dtype=torch.float64)
    found = true_factor_map(factor, linear @ factor, eps=1e-10)
    torch.testing.assert_close(found, linear, atol=1e-5, rtol=1e-5)


def test_true_factor_turns_with_the_surface() -> None:
    factor = torch.cat([torch.diag(torch.tensor([6.0, 2.0])), torch.zeros(2, 1)], dim=1)
    turned = TURN @ factor
    torch.testing.assert_close(true_factor_map(factor, turned, eps=1e-4), TURN, atol=1e-3, rtol=0)


def test_true_factor_is_the_regression_of_the_next_pixel_on_this_one() -> None:
    g = torch.Generator().manual_seed(0)
    factor, factor_next = 3 * torch.randn(2, 2, 3, generator=g, dtype=torch.float64)
    latent = torch.randn(400_000, 3, generator=g, dtype=torch.float64)
    blur = math.sqrt(0.3) * torch.randn(400_000, 2, generator=g, dtype=torch.float64)
    now, then = latent @ factor.mT + blur, latent @ factor_next.mT
    regression = torch.linalg.lstsq(now, then).solution.mT
    torch.testing.assert_close(true_factor_map(factor, factor_next, eps=0.3), regression, atol=1e-2, rtol=0)


def test_true_factor_gradients() -> None:
    g = torch.Generator().manual_seed(1)
    factors = [torch.randn(2, 2, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: true_factor_map(a, b, eps=0.3), factors)
    zero = torch.zeros(1, 2, 3, requires_grad=True)
    true_factor_map(zero, zero, eps=0.3).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


def test_barycentric_map_of_a_pairing_is_the_pairing_and_of_the_product_the_mean() -> None:
    g = torch.Generator().manual_seed(2)
    points, weights = torch.randn(5, 2, generator=g), torch.rand(5, generator=g).softmax(0)
    order = torch.randperm(5, generator=g)
    pairing = torch.zeros(5, 5)
    pairing[torch.arange(5), order] = weights
    torch.testing.assert_close(barycentric_map(pairing, points), points[order])
    product = torch.full((3, 1), 1 / 3) * weights
    torch.testing.assert_close(barycentric_map(product, points), (weights @ points).expand(3, 2))


def test_barycentric_map_preserves_the_mean_and_ignores_empty_rows() -> None:
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(4, 2, generator=g), torch.randn(6, 2, generator=g)
    a, b = torch.rand(4, generator=g).softmax(0), torch.rand(6, generator=g).softmax(0)
    plan = sinkhorn_rounded(torch.cdist(x, y).square(), a, b).plan
    torch.testing.assert_close(a @ barycentric_map(plan, y), b @ y)
    assert barycentric_map(torch.zeros(1, 6), y).tolist() == [[0.0, 0.0]]
