"""Points of the surface that frame 0 shows, followed through the video along its flow."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Flow
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.flow import follow_flows

_SOLID = 0.95  # coverage from which a pixel shows one surface


@dataclass(frozen=True)
class SurfaceTracks:
    """M points of the surface, as the video shows them.

    Attributes:
        points: In frame 0, world units.
        pixels: In the T frames; finite everywhere.
        weights: In [0, 1]: 1 in frame 0, then falling with the confidence of the flow; 0 from where it is not known.
    """

    points: Float[Tensor, "M 3"]
    pixels: Float[Tensor, "T M 2"]
    weights: Float[Tensor, "T M"]


@torch.no_grad()
def follow_surface(
    depth: Float[Tensor, "H W 1"],
    alpha: Float[Tensor, "H W 1"],
    camera: Cameras,
    flow: Flow,
    count: int,
    generator: torch.Generator,
) -> SurfaceTracks:
    """Choose pixels of frame 0 at random, and follow what they show until it is hidden.

    Args:
        depth: Rendered depth of frame 0.
        alpha: Its coverage.
        camera: The one it was rendered for.
        flow: From each frame to the next, at the same resolution.
        count: Points at most; fewer where fewer pixels are covered and have a flow.
        generator: Draws the pixels (CPU).
    """
    rows, columns = torch.nonzero((alpha[..., 0] > _SOLID) & (flow.weights[0] > 0)).unbind(1)
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    rows, columns = rows[chosen], columns[chosen]
    start = torch.stack([columns, rows], dim=-1) + 0.5
    points = camera.unproject(start[None], depth[rows, columns].mT)[0]
    return SurfaceTracks(points, *follow_flows(flow.flow, flow.weights, start))
