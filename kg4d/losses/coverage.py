"""Coverage: projected centres of Gaussians flow over the matte, which nobody has paired with them."""

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.drifting import coverage_loss


def matte_coverage_loss(
    points: Float[Tensor, "B n 2"],
    opacities: Float[Tensor, "B n"],
    alphas: Float[Tensor, "S H W 1"],
    bandwidth: float,
    samples: int,
    generator: torch.Generator,
    own: slice = slice(None),
) -> Float[Tensor, ""]:
    """How far the points are from where they drift to in one step of the flow of KL(points | matte).

    A mean over frames of weighted mean squares (`kg4d.flows.drifting.coverage_loss`), squared longer sides of the
    image. Frames whose matte is empty count as 0.

    Args:
        points: Projected centres, px, differentiable.
        opacities: Their masses, of which only the values count; not all 0.
        alphas: Mattes in [0, 1] of the frames of a step, which points are drawn from alike in all processes.
        bandwidth: Width of both density estimates, longer sides of the image.
        samples: Points drawn from each matte.
        generator: Draws them (CPU).
        own: Which of the frames the points belong to.
    """
    extent = max(alphas.shape[1:3])
    in_step = alphas.flatten(1).sum(1) > 0
    shown = in_step[own]
    if not bool(shown.any()):
        return points.sum() * 0
    kept = torch.zeros_like(in_step)
    kept[own] = True
    targets = matte_points(alphas[in_step], samples, generator).to(points)[kept[in_step]]
    terms = [
        coverage_loss(here / extent, there / extent, bandwidth, point_weights=masses)
        for here, there, masses in zip(points[shown], targets, opacities[shown], strict=True)
    ]
    return torch.stack(terms).sum() / len(points)


def matte_points(
    alphas: Float[Tensor, "B H W 1"], samples: int, generator: torch.Generator
) -> Float[Tensor, "B samples 2"]:
    """Points drawn from mattes as from densities, anywhere in a pixel; px, (0.5, 0.5) is the centre of the first.

    Args:
        alphas: None of them empty.
        samples: How many of each.
        generator: CPU.
    """
    width = alphas.shape[2]
    chosen = torch.multinomial(alphas.flatten(1).cpu(), samples, replacement=True, generator=generator)
    corners = torch.stack([chosen % width, chosen // width], dim=-1)
    return corners + torch.rand(corners.shape, generator=generator)
