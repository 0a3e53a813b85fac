import pytest
import torch

from kg4d.render import build_renderer
from kg4d.render.base import Renderer
from tests.render.scenes import random_case


def test_weights_of_all_contributors_sum_to_alpha(renderer: Renderer) -> None:
    output = random_case(cameras=2).on(renderer).render(renderer)
    ys, xs = torch.meshgrid(torch.arange(38), torch.arange(45), indexing="ij")
    pixels = (torch.stack([xs, ys], -1).reshape(-1, 2) + 0.3).to(renderer.device)
    for camera in range(2):
        ids = torch.full((len(pixels),), camera, device=renderer.device)
        found = renderer.contributors(output, ids, pixels, 200)
        assert torch.allclose(found.weights.sum(-1), output.alpha[camera].flatten(), atol=2e-6)
        assert (found.weights.diff(dim=-1) <= 0).all()
        assert ((found.ids == -1) == (found.weights == 0)).all()


def test_weights_times_features_are_the_image(renderer: Renderer) -> None:
    case = random_case(channels=4).on(renderer)
    case.background = None
    output = case.render(renderer)
    pixels = torch.tensor([[10.0, 20.0], [22.5, 19.5], [30.9, 11.1]], device=renderer.device)
    found = renderer.contributors(output, torch.zeros(3, dtype=torch.int64, device=renderer.device), pixels, 200)
    image = (found.weights[..., None] * case.features.detach()[found.ids]).sum(1)
    x, y = pixels.long().unbind(-1)
    assert torch.allclose(image, output.image[0, y, x].detach(), atol=1e-5)


def test_the_kernels_find_who_the_reference_finds(reference: Renderer) -> None:
    case, cpu = random_case(seed=3), build_renderer("cpu", threads=2)
    pixels = torch.rand(60, 2) * torch.tensor([45.0, 38.0])
    cameras = torch.zeros(60, dtype=torch.int64)
    found = cpu.contributors(case.on(cpu).render(cpu), cameras, pixels, 8)
    exact = case.on(reference, torch.float64).render(reference)
    expected = reference.contributors(exact, cameras, pixels.double(), 8)
    assert torch.equal(found.ids, expected.ids)
    assert torch.allclose(found.weights.double(), expected.weights, atol=1e-6)


def test_points_outside_have_no_contributors(renderer: Renderer) -> None:
    output = random_case().on(renderer).render(renderer)
    pixels = torch.tensor([[-0.1, 3.0], [45.0, 3.0], [3.0, 38.0], [1e9, -1e9], [float("nan"), 1.0]])
    ids = torch.zeros(5, dtype=torch.int64, device=renderer.device)
    found = renderer.contributors(output, ids, pixels.to(renderer.device), 3)
    assert (found.ids == -1).all()
    assert (found.weights == 0).all()
    assert len(renderer.contributors(output, ids[:0], pixels[:0].to(renderer.device), 3).ids) == 0


def test_wrong_questions_are_refused(renderer: Renderer) -> None:
    output = random_case(count=5).on(renderer).render(renderer)
    ids, pixels = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 2)
    with pytest.raises(ValueError, match="k must be"):
        renderer.contributors(output, ids.to(renderer.device), pixels.to(renderer.device), 0)
    other = build_renderer("cpu" if renderer.name == "reference" else "reference")
    with pytest.raises(ValueError, match="another renderer"):
        other.contributors(output, ids, pixels, 1)
