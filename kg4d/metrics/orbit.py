"""How clean a model looks from around, without any truth: specks inside its outline, and holes in it.

Both are made for models whose sides no view shows. They say nothing about how right the sides are.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.metrics.state import SampleMean

# As shares of the longer side of the image: what is measured must not depend on its size.
_GAP = 3 / 64  # narrower gaps belong to the outline
_RIM = 1 / 64  # what lies nearer to the outline's edge than this does not count: edges are no specks
_PART = 1 / 1200  # share of the image below which a part is not the object
_COVERED = 0.8  # opacity below which a pixel is a hole


def outline(alpha: Float[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """What the object would cover if it had no holes: gaps are closed, outer contours filled, crumbs left out.

    Args:
        alpha: Coverage in [0, 1].
    """
    solid = (alpha > 0.5).cpu().numpy().astype(np.uint8)
    side = 2 * round(_GAP * max(solid.shape) / 2) + 1
    padded = np.pad(solid, side)  # else what lies at the border of the image grows by the closing
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))[side:-side, side:-side]
    contours, _ = cv2.findContours(np.ascontiguousarray(closed), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    kept = [contour for contour in contours if cv2.contourArea(contour) > _PART * solid.size]
    filled = np.zeros_like(solid)
    cv2.drawContours(filled, kept, -1, 1, cv2.FILLED)
    return torch.from_numpy(filled > 0).to(alpha.device)


def roughness(image: Float[Tensor, "3 H W"], alpha: Float[Tensor, "1 H W"]) -> Float[Tensor, ""]:
    """Mean length of the colour gradient inside the outline, without its rim; NaN where nothing is inside.

    Args:
        image: RGB in [0, 1] on an even background.
        alpha: Coverage in [0, 1].

    Returns:
        Change of colour per px.
    """
    reach = round(_RIM * max(alpha.shape[-2:]))
    outside = (~outline(alpha[0]))[None, None].float()
    side = 2 * reach + 1
    inside = torch.nn.functional.max_pool2d(outside, side, stride=1, padding=reach)[0, 0] == 0
    down, across = torch.gradient(image, dim=(1, 2))
    return (down.square() + across.square()).sum(0).sqrt()[inside].mean()


def specks(
    images: Float[Tensor, "B 3 H W"],
    alphas: Float[Tensor, "B 1 H W"],
    seen: Float[Tensor, "B 3 H W"],
    seen_alphas: Float[Tensor, "B 1 H W"],
) -> Float[Tensor, " B"]:
    """How much rougher the model is in a view from around than in the view that it was fitted to; 1 is as rough.

    Args:
        images: Renders from around, RGB in [0, 1] on an even background.
        alphas: Their coverage in [0, 1].
        seen: Renders of the same moments in the view of the fit, on the same background.
        seen_alphas: Their coverage.

    Returns:
        Ratio of `roughness`; NaN where either outline has no inside.
    """
    pairs = zip(images, alphas, seen, seen_alphas, strict=True)
    return torch.stack([roughness(image, alpha) / roughness(base, cover) for image, alpha, base, cover in pairs])


def holes(alphas: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
    """Share of the outline that is not covered; NaN where there is no outline.

    Args:
        alphas: Coverage of renders in [0, 1].
    """
    return torch.stack([(alpha[0][outline(alpha[0])] < _COVERED).to(alpha.dtype).mean() for alpha in alphas])


class Specks(SampleMean):
    """Mean of `specks` over views."""

    higher_is_better = False

    def update(
        self,
        images: Float[Tensor, "B 3 H W"],
        alphas: Float[Tensor, "B 1 H W"],
        seen: Float[Tensor, "B 3 H W"],
        seen_alphas: Float[Tensor, "B 1 H W"],
    ) -> None:
        """Add views, each beside the view of the fit at the same moment."""
        self.add(specks(images, alphas, seen, seen_alphas))


class Holes(SampleMean):
    """Mean of `holes` over views."""

    higher_is_better = False

    def update(self, alphas: Float[Tensor, "B 1 H W"]) -> None:
        """Add views."""
        self.add(holes(alphas))
