"""Where a model errs, told of its Gaussians: the error of pictures, by what each Gaussian gives to their pixels."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import PosedImages
from kg4d.formats.base import MovingModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import RasterOptions, Renderer

_SEEN = 0.5  # px: a Gaussian that gives less than that to all pictures together has no error of its own
_SAME_TIME = 1e-6


def image_errors(
    model: MovingModel, images: PosedImages, states: Sequence[GaussianState], times: Float[Tensor, " T"]
) -> list[Float[Tensor, " N"]]:
    r"""The mean error of pictures where each Gaussian is seen.

    That of Gaussian i is :math:`\sum_p w_{ip} e_p / \sum_p w_{ip}` over the pixels p of all pictures, with its blending
    weights w, and e the absolute difference between model and picture, mean over RGB. Where Gaussians come and go,
    those of each frame are measured by the pictures of its time alone.

    Args:
        model: What is measured.
        images: The pictures.
        states: Its Gaussians in T frames.
        times: Of the frames.

    Returns:
        Of each frame, errors in [0, 1]; NaN for Gaussians that are nearly nowhere seen.
    """
    linked = len({len(state) for state in states}) == 1
    sums = [torch.zeros(len(state), 2) for state in (states[:1] if linked else states)]
    frames = (images.times[:, None] - times).abs().min(dim=1)
    truth = images.composited(model.background)
    for time in torch.unique(images.times):
        chosen = torch.nonzero(images.times == time)[:, 0]
        if not linked and frames.values[chosen[0]] > _SAME_TIME:
            continue
        cameras, (state,) = images.cameras[chosen], model.states(time[None])
        drawn = model.render(cameras, images.times[chosen]).clamp(0, 1)
        error = (drawn - truth[chosen]).abs().mean(-1)
        sums[0 if linked else int(frames.indices[chosen[0]])] += _weighted(model.renderer, state, cameras, error)
    errors = [torch.where(total[:, 1] > _SEEN, total[:, 0] / total[:, 1], torch.nan) for total in sums]
    return errors * len(states) if linked else errors


def _weighted(
    renderer: Renderer, state: GaussianState, cameras: Cameras, error: Float[Tensor, "C H W"]
) -> Float[Tensor, "N 2"]:
    r"""Of each Gaussian, the sum of weight times error, and that of the weights, over all pixels.

    A picture of features f is :math:`\sum_i w_{ip} f_i`, so the gradient of its product with e is what is asked for.
    """
    features = torch.zeros(len(state), 2, device=renderer.device, requires_grad=True)
    options = replace(renderer.options, near=RasterOptions.near, far=RasterOptions.far)  # these are of another unit
    with torch.enable_grad():
        output = renderer(
            state.detach().to(renderer.device), cameras.to(renderer.device), features=features, options=options
        )
    given = torch.stack([error, torch.ones_like(error)], dim=-1).to(renderer.device)
    (found,) = torch.autograd.grad(output.image, features, given)
    return found.cpu()
