import torch
from torch import Tensor

from kg4d.data.records import Flow
from kg4d.geometry.sampling import pixel_centers
from kg4d.lift.surface import SurfaceTracks, follow_surface
from tests import make

SIZE, COUNT = 32, 60
CAMERA = make.cameras([30.0], [20.0], size=SIZE)


def slanted_depth() -> Tensor:
    """Depth of a plane that is not parallel to the image."""
    return (2.0 + 0.01 * pixel_centers(SIZE, SIZE)[..., :1]).float()


def followed(weights: Tensor, flow: Tensor | None = None, count: int = COUNT) -> SurfaceTracks:
    alpha = torch.zeros(SIZE, SIZE, 1)
    alpha[8:24, 8:24] = 1.0
    alpha[8, 8:24] = 0.5  # the edge of the body is not covered
    flow = torch.tensor([1.0, 0.0]).expand(3, SIZE, SIZE, 2) if flow is None else flow
    generator = torch.Generator().manual_seed(0)
    return follow_surface(slanted_depth(), alpha, CAMERA, Flow(flow, weights), count, generator)


def test_points_lie_behind_their_pixels_at_the_rendered_depth() -> None:
    found = followed(torch.ones(3, SIZE, SIZE))
    assert found.points.shape == (COUNT, 3)
    projected = CAMERA.project(found.points)
    torch.testing.assert_close(projected.pixels[0], found.pixels[0], atol=1e-3, rtol=0)
    column, row = (found.pixels[0] - 0.5).long().unbind(-1)
    torch.testing.assert_close(projected.depths[0], slanted_depth()[row, column, 0])
    assert int(row.min()) > 8
    assert int(row.max()) < 24
    torch.testing.assert_close(found.pixels[3], found.pixels[0] + torch.tensor([3.0, 0.0]))
    assert torch.equal(found.weights, torch.ones(4, COUNT))


def test_points_are_lost_where_the_flow_is_unknown() -> None:
    weights = torch.ones(3, SIZE, SIZE)
    weights[0, :, 16:] = 0.0  # nothing starts here
    weights[1, :, 15:] = 0.0  # what has come here is lost
    found = followed(weights)
    assert float(found.pixels[0, :, 0].max()) < 16
    lost = found.pixels[1, :, 0] > 14.5
    assert bool(lost.any())
    assert torch.equal(found.weights[2], (~lost).float())
    assert torch.equal(found.weights[3], found.weights[2])


def test_there_are_no_more_points_than_pixels() -> None:
    assert len(followed(torch.ones(3, SIZE, SIZE), count=10_000).points) == 15 * 16
    assert len(followed(torch.zeros(3, SIZE, SIZE)).points) == 0
