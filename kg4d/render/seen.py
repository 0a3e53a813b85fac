"""Which Gaussians images show, and how much of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import Renderer


@torch.enable_grad()
def blending_weights(renderer: Renderer, moving: MovingGaussians, cameras: Cameras) -> Float[Tensor, " N"]:
    """The weight with which each Gaussian is blended, summed over all pixels of all images; px.

    An image is linear in the features of the Gaussians, so this is the gradient of its sum.

    Args:
        renderer: Draws them.
        moving: N Gaussians at B times.
        cameras: One a time.
    """
    features = moving.means.new_ones(moving.means.shape[1], 1).requires_grad_()
    image = renderer.frames(moving, cameras, features=features).image
    (weights,) = torch.autograd.grad(image.sum(), features)
    return weights[:, 0]
