"""How much of each Gaussian images show."""

import torch

from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.render.base import Renderer
from kg4d.render.seen import blending_weights
from tests import make


def still(state: GaussianState, times: int) -> MovingGaussians:
    return MovingGaussians.still(state, times)


def test_the_weights_add_up_to_what_is_covered(renderer: Renderer) -> None:
    state, cameras = make.random_gaussians(40, spread=0.2), make.cameras([0.0, 70.0], size=24)
    weights = blending_weights(renderer, still(state, 2), cameras)
    covered = renderer.frames(still(state, 2), cameras).alpha.sum()
    torch.testing.assert_close(weights.sum(), covered, rtol=1e-4, atol=1e-3)
    assert (weights >= 0).all()


def test_what_is_hidden_weighs_next_to_nothing(renderer: Renderer) -> None:
    means = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, -0.5], [9.0, 0.0, 0.0]])
    state = make.gaussians(means, scales=torch.tensor([0.3, 0.05, 0.1])[:, None].expand(3, 3), opacities=0.99)
    front, back = (blending_weights(renderer, still(state, 1), make.cameras([turn], size=24)) for turn in (0.0, 180.0))
    assert front[1] < 0.05 * back[1]
    assert front[2] == 0  # beside the image
