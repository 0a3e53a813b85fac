import torch

from kg4d.geometry.flow import chain_flows, follow_flows
from kg4d.geometry.sampling import pixel_centers

HEIGHT, WIDTH = 20, 24


def test_one_flow_is_itself() -> None:
    flow, weights = torch.randn(1, HEIGHT, WIDTH, 2), torch.rand(1, HEIGHT, WIDTH) + 0.1
    found = chain_flows(flow, weights)
    assert torch.equal(found.flow, flow[0])
    assert torch.equal(found.weights, weights[0])


def test_affine_flows_compose_as_their_maps() -> None:
    first = torch.tensor([[1.05, -0.1], [0.08, 0.97]])
    second = torch.tensor([[0.96, 0.12], [-0.05, 1.02]])
    start, centre = pixel_centers(HEIGHT, WIDTH), torch.tensor([WIDTH / 2, HEIGHT / 2])
    away = start - centre
    flows = torch.stack([away @ m.mT - away for m in (first, second)])
    found = chain_flows(flows, torch.full((2, HEIGHT, WIDTH), 0.5))
    inner = slice(4, -4)
    torch.testing.assert_close(
        found.flow[inner, inner], (away @ (second @ first).mT - away)[inner, inner], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(found.weights[inner, inner], torch.full((HEIGHT - 8, WIDTH - 8), 0.25))


def test_what_leaves_the_image_or_the_known_is_not_known() -> None:
    flows = torch.tensor([2.0, 0.0]).expand(3, HEIGHT, WIDTH, 2)
    weights = torch.ones(3, HEIGHT, WIDTH)
    weights[1, 7, 10] = 0.0  # where pixel (8, 7) has come after one step
    known = chain_flows(flows, weights).weights
    assert known[7, 8] == 0
    assert known[7, 7] == known[7, 9] == 1
    assert (known[:, WIDTH - 4 :] == 0).all()  # the third step would start beyond the border
    assert known[:7, : WIDTH - 4].min() == 1


def test_points_between_the_pixels_are_followed_through_every_frame() -> None:
    flows = torch.tensor([1.5, -0.25]).expand(3, HEIGHT, WIDTH, 2)
    weights = torch.full((3, HEIGHT, WIDTH), 0.5)
    weights[2, :, 12:] = 0.0
    start = torch.tensor([[3.2, 9.1], [9.7, 10.0]])
    found = follow_flows(flows, weights, start)
    torch.testing.assert_close(found.pixels, start + torch.arange(4.0)[:, None, None] * torch.tensor([1.5, -0.25]))
    torch.testing.assert_close(found.weights, torch.tensor([[1, 1], [0.5, 0.5], [0.25, 0.25], [0.125, 0]]))
