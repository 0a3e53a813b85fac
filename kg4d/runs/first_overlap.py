"""Whether the first Gaussians are where the reference video shows the object."""

import logging
from typing import NamedTuple

import torch

from kg4d.data.records import PosedImages
from kg4d.gaussians.settings import InitKind
from kg4d.gaussians.state import GaussianState
from kg4d.render.base import Renderer

_log = logging.getLogger(__name__)

_HALF = 0.5  # starts that fit cover 0.7 of a matte or more, and unless they are balls, 0.3 of them is outside at most
_CHECK = {
    InitKind.HULL: "check that transforms_train.json and transforms_ring.json have the same units, origin and axes, "
    "or leave the ring out (frames.ring=false)",
    InitKind.POINTS: "check that gaussians.points has the units, origin and axes of the cameras",
    InitKind.BALL: "check where the cameras look, or set gaussians.ball_radius",
    InitKind.INFLATED: "check the first camera and its matte",
}


class Overlap(NamedTuple):
    """How Gaussians that are drawn, and a matte, lie on one another."""

    covered: float  # share of the matte that is drawn, in [0, 1]
    outside: float  # share of what is drawn that lies outside of the matte, in [0, 1]


@torch.no_grad()
def overlap(renderer: Renderer, gaussians: GaussianState, images: PosedImages) -> Overlap:
    """The overlap of Gaussians with the matte of the first of some images.

    Args:
        renderer: Draws them.
        gaussians: On its device.
        images: At least one; its matte is not blank.
    """
    drawn = renderer(gaussians, images.cameras[0].to(renderer.device)).alpha[0]
    matte = images.alphas[0].to(drawn)
    both = torch.minimum(drawn, matte).sum()
    tiny = torch.finfo(drawn.dtype).tiny
    return Overlap(float(both / matte.sum()), float(1 - both / drawn.sum()) if drawn.sum() > tiny else 0.0)


def warn_of_little_overlap(
    renderer: Renderer, gaussians: GaussianState, reference: PosedImages, kind: InitKind
) -> None:
    """Say in the log when the first Gaussians cover less than half of the reference's first matte, or hardly lie on it.

    Args:
        renderer: Draws them.
        gaussians: On its device, both sides where they have two.
        reference: The reference video.
        kind: Where they start; a ball may be larger than the object.
    """
    found = overlap(renderer, gaussians, reference)
    if found.covered < _HALF:
        what = f"the first Gaussians cover {100 * found.covered:.0f} % of the reference's matte"
    elif found.outside > _HALF and kind is not InitKind.BALL:
        what = f"{100 * found.outside:.0f} % of the first Gaussians lie outside of the reference's matte"
    else:
        return
    _log.warning("%s: %s", what, _CHECK[kind])
