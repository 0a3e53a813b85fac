"""Quality of motion in the image: end-point error against the true flow, and flicker along it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kg4d.metrics.state import PooledMean, SampleMean


def end_point_errors(
    pred: Float[Tensor, "*batch H W 2"],
    target: Float[Tensor, "*batch H W 2"],
    weights: Float[Tensor, "*batch H W"],
) -> Float[Tensor, " n"]:
    """Distance in px between the two displacements, for every pixel with a positive weight; see `flow_epe`."""
    return (pred - target).square().sum(-1).sqrt()[weights > 0]


def flow_epe(
    pred: Float[Tensor, "*batch H W 2"],
    target: Float[Tensor, "*batch H W 2"],
    weights: Float[Tensor, "*batch H W"],
) -> Float[Tensor, ""]:
    """Mean end-point error in px over all pixels with a positive weight (Baker et al. 2011); NaN when there is none.

    Args:
        pred: Displacement (dx, dy) in px from each frame to the next.
        target: The true displacement.
        weights: > 0 where the truth is known.
    """
    return end_point_errors(pred, target, weights).mean()


def flicker(
    video: Float[Tensor, "T 3 H W"],
    flow: Float[Tensor, "T-1 H W 2"],
    weights: Float[Tensor, "T-1 H W"],
) -> Float[Tensor, " T-1"]:
    """Warp error of each step: mean absolute colour change along the true motion.

    Source: Lai et al. 2018, "Learning blind video temporal consistency", section 4.

    Args:
        video: Frames in [0, 1].
        flow: True displacement (dx, dy) in px from frame t to t + 1.
        weights: > 0 where the point seen in frame t is also seen in frame t + 1.

    Returns:
        One value in [0, 1] per step, NaN where no pixel counts. The true video scores above 0 too (edges, shading), so
        compare with its score.
    """
    _, _, height, width = video.shape
    rows, columns = torch.meshgrid(
        torch.arange(height, device=video.device), torch.arange(width, device=video.device), indexing="ij"
    )
    centres = torch.stack((columns, rows), -1).to(video.dtype) + 0.5
    size = torch.tensor((width, height), dtype=video.dtype, device=video.device)
    grid = 2 * (centres + flow.to(video.dtype)) / size - 1  # [-1, 1] spans the image from edge to edge
    moved = F.grid_sample(video[1:], grid, padding_mode="border", align_corners=False)
    change = (moved - video[:-1]).abs().mean(1)
    counts = (weights > 0).to(video.dtype)
    return (change * counts).sum((1, 2)) / counts.sum((1, 2))


class FlowEPE(PooledMean):
    """`flow_epe` over the pixels of all flow fields."""

    higher_is_better = False

    def update(
        self,
        pred: Float[Tensor, "*batch H W 2"],
        target: Float[Tensor, "*batch H W 2"],
        weights: Float[Tensor, "*batch H W"],
    ) -> None:
        """Add flow fields."""
        self.add(end_point_errors(pred, target, weights))


class Flicker(SampleMean):
    """Mean of `flicker` over the steps of videos."""

    higher_is_better = False

    def update(
        self,
        video: Float[Tensor, "T 3 H W"],
        flow: Float[Tensor, "T-1 H W 2"],
        weights: Float[Tensor, "T-1 H W"],
    ) -> None:
        """Add a video."""
        self.add(flicker(video, flow, weights))
