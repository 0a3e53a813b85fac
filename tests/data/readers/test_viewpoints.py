import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.data.readers.viewpoints import looked_at
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import look_at
from tests import make


@given(st.integers(0, 1000), st.integers(2, 6))
def test_the_point_that_all_cameras_look_at(seed: int, count: int):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(3, generator=generator)
    eyes = target + 3 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    viewmats = look_at(eyes, target, torch.tensor([0.1, 0.9, 0.3]))
    cameras = Cameras(viewmats, torch.eye(3).expand(count, 3, 3), 8, 8)
    assert torch.allclose(looked_at([cameras[:1], cameras[1:]]), target, atol=1e-2)


def test_one_axis_alone_is_met_next_to_the_origin():
    cameras = make.cameras([20.0] * 3, size=8)
    assert torch.allclose(looked_at([cameras]), torch.zeros(3), atol=1e-3)
