"""Keypoint Feature Calibration inside a stage: the model's keypoints in the views of a step, against the reference."""

from jaxtyping import Float
from torch import Tensor

from kg4d.geometry.cameras import Cameras, project_each
from kg4d.losses.kfc import Draw, keypoint_loss, keypoint_visibility, read_heatmaps, render_heatmaps
from kg4d.losses.settings import KeypointVisibility, KfcConfig, KfcMode
from kg4d.optim.objective import Objective
from kg4d.render.base import RenderOutput


def add_calibration(
    objective: Objective,
    config: KfcConfig,
    draw: Draw,
    logits: Float[Tensor, "N J"],
    points: Float[Tensor, "B J 3"],
    output: RenderOutput,
    cameras: Cameras,
    target: Float[Tensor, "B J 2"],
    weights: Float[Tensor, "B J"],
    *,
    weight: float,
    warmup: float = 0.0,
) -> int:
    """Add the term `kfc` (KG4D eq. 9) for B views.

    Args:
        objective: Of this step.
        config: How keypoints are read, and which of them count.
        draw: Draws the heatmaps of all B views.
        logits: The keypoint features of the Gaussians.
        points: The model's keypoints in each view, world units.
        output: The render of the views, with depth where `config.visibility` asks for it.
        cameras: Of the B views.
        target: Reference keypoints, px.
        weights: Their confidence; 0 leaves one out.
        weight: Of the term.
        warmup: Share of the stage over which it grows from 0.

    Returns:
        How many images were drawn for it.
    """
    drawn = 0
    match config.mode:
        case KfcMode.BARYCENTRE:
            pixels = project_each(points, cameras)
        case KfcMode.HEATMAP:
            pixels = read_heatmaps(render_heatmaps(draw, logits, cameras, config), cameras, config)
            drawn = len(cameras)
    if config.visibility is KeypointVisibility.DEPTH:
        weights = weights * keypoint_visibility(points, cameras, output, config)
    loss = keypoint_loss(pixels, target, weights, float(max(cameras.width, cameras.height)))
    objective.add("kfc", loss, weight, warmup, shared_out=True)
    return drawn
