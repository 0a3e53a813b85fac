"""The coverage loss: what its gradient is, that it grows over a matte, and that the image size does not matter."""

import pytest
import torch
from torch import Tensor

from kg4d.flows.drifting import step_of, velocity
from kg4d.flows.kernels import annealed
from kg4d.losses.coverage import matte_coverage_loss, matte_points
from kg4d.losses.settings import CoverageConfig

F64 = torch.float64
SIZE = 32


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(size: int = SIZE) -> Tensor:
    """A matte that fills the middle of a wide image."""
    alpha = torch.zeros(1, size // 2, size, 1, dtype=F64)
    alpha[:, size // 8 : 3 * size // 8, size // 4 : 3 * size // 4] = 1
    return alpha


def scattered(count: int = 20) -> tuple[Tensor, Tensor]:
    g = generator(1)
    return SIZE * torch.rand(1, count, 2, generator=g, dtype=F64), torch.rand(1, count, generator=g, dtype=F64) + 0.1


def test_points_of_a_matte_are_where_it_is_and_as_dense() -> None:
    alpha = torch.zeros(2, 4, 6, 1)
    alpha[0, 1, 2], alpha[0, 3, 5], alpha[1, 0, 0] = 0.25, 0.75, 1e-3
    points = matte_points(alpha, 4000, generator())
    first, second = ((points.floor() == torch.tensor(pixel)).all(-1) for pixel in ([2.0, 1.0], [5.0, 3.0]))
    assert bool((first | second)[0].all())
    assert float(second[0].float().mean()) == pytest.approx(0.75, abs=0.03)
    assert float(points[1].mean()) == pytest.approx(0.5, abs=0.02)


def test_the_gradient_is_that_of_going_where_the_flow_goes() -> None:
    """Finite differences of the squared distance to where one step of the flow leads, in longer sides."""
    points, masses = scattered(6)
    leaf = points.clone().requires_grad_()
    loss = matte_coverage_loss(leaf, masses, square(), 0.1, 50, generator())
    (gradient,) = torch.autograd.grad(loss, leaf)
    target = matte_points(square(), 50, generator()).to(F64)[0] / SIZE
    here = points[0] / SIZE
    goal = here + step_of(here, velocity(here, target, 0.1, q_weights=masses[0]), 0.1, 0.2)

    def distance(places: Tensor) -> Tensor:
        return (masses[0] / masses.sum() * (places / SIZE - goal).square().sum(-1)).sum()

    assert float(loss.detach()) == pytest.approx(float(distance(points[0])))
    step = 1e-4
    for i in range(6):
        for axis in range(2):
            there, back = points[0].clone(), points[0].clone()
            there[i, axis] += step
            back[i, axis] -= step
            slope = (distance(there) - distance(back)) / (2 * step)
            assert float(gradient[0, i, axis]) == pytest.approx(float(slope), rel=1e-6, abs=1e-12)


def test_the_image_size_does_not_matter() -> None:
    points, masses = scattered()
    values = [
        matte_coverage_loss(points * size / SIZE, masses, square(size), 0.1, 20000, generator())
        for size in (SIZE, 4 * SIZE)
    ]
    assert float(values[1]) == pytest.approx(float(values[0]), rel=0.02)


def test_descent_covers_the_matte() -> None:
    """A knot of points spreads over it as evenly as fresh points of it lie, nearly."""
    leaf = (0.5 * torch.randn(1, 60, 2, generator=generator(3), dtype=F64) + torch.tensor([10.0, 6.0])).requires_grad_()
    adam, config = torch.optim.Adam([leaf], lr=0.4), CoverageConfig(start=0.2, end=0.05)
    for k in range(120):
        adam.zero_grad()
        loss = matte_coverage_loss(
            leaf, torch.ones(1, 60, dtype=F64), square(), annealed(config.start, config.end, k / 100), 200, generator(k)
        )
        loss.backward()
        adam.step()
    wanted, fair = matte_points(square(), 500, generator(4))[0], matte_points(square(), 60, generator(5))[0]
    gaps, fair_gaps = (torch.cdist(wanted, q.to(wanted)).min(1).values.mean() for q in (leaf.detach()[0], fair))
    assert gaps < 1.1 * fair_gaps


def test_nothing_to_cover_costs_nothing_and_pulls_nothing() -> None:
    points, masses = scattered()
    leaf = points.requires_grad_()
    loss = matte_coverage_loss(leaf, masses, torch.zeros(1, 8, 8, 1, dtype=F64), 0.1, 10, generator())
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert float(loss.detach()) == 0
    assert not gradient.any()


def test_an_empty_frame_counts_as_zero_among_others() -> None:
    points, masses = scattered()
    alone = matte_coverage_loss(points, masses, square(), 0.1, 100, generator())
    both = torch.cat([torch.zeros_like(square()), square()])
    half = matte_coverage_loss(points.expand(2, -1, -1), masses.expand(2, -1), both, 0.1, 100, generator())
    torch.testing.assert_close(2 * half, alone)


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"end": -1.0}, {"points": 0}, {"weight": -1.0}])
def test_settings_out_of_range_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^coverage.{next(iter(bad))}: must"):
        CoverageConfig(**bad)
