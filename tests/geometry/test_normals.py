import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from kg4d.geometry.normals import outward_normals
from kg4d.geometry.rotations import quat_rotate


def solid_ball(count: int = 4000, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    directions = normalize(torch.randn(count, 3, generator=g), dim=-1)
    return directions * torch.rand(count, 1, generator=g) ** (1 / 3)


def test_at_the_surface_of_a_ball_they_point_away_from_its_middle() -> None:
    points = solid_ball()
    normals = outward_normals(points, torch.full((len(points),), 0.7), width=0.3)
    outer = points.norm(dim=-1) > 0.8
    assert (normals[outer] * normalize(points[outer], dim=-1)).sum(-1).min() > 0.8
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(points)))


def test_what_is_transparent_does_not_count() -> None:
    points, others = solid_ball(500), solid_ball(300, seed=1) + 0.5
    opacities = torch.cat([torch.ones(500), torch.zeros(300)])
    mixed = outward_normals(torch.cat([points, others]), opacities, width=0.3)
    torch.testing.assert_close(mixed[:500], outward_normals(points, torch.ones(500), width=0.3), rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 1000))
def test_they_turn_with_the_points_and_not_with_their_place(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points, turn = torch.randn(40, 3, generator=g).double(), torch.randn(4, generator=g).double()
    opacities = torch.rand(40, generator=g).double() + 0.1
    moved = quat_rotate(turn.expand(40, 4), points) + torch.randn(3, generator=g)
    expected = quat_rotate(turn.expand(40, 4), outward_normals(points, opacities, width=0.5))
    torch.testing.assert_close(outward_normals(moved, opacities, width=0.5), expected)


def test_the_size_of_the_chunks_changes_nothing() -> None:
    points, opacities = solid_ball(50), torch.ones(50)
    whole = outward_normals(points, opacities, width=0.2)
    torch.testing.assert_close(outward_normals(points, opacities, width=0.2, chunk=7), whole)


def test_one_alone_has_none() -> None:
    assert torch.equal(outward_normals(torch.ones(1, 3), torch.ones(1), width=0.1), torch.zeros(1, 3))
