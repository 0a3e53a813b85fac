"""Reading an image between its pixels: the only file in which pixel centres become array indices.

`image[row, column]` is the value at the point (x, y) = (column + 0.5, row + 0.5); the image covers [0, W] x [0, H].
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pixel_centers(height: int, width: int) -> Float[Tensor, "{height} {width} 2"]:
    """The point (x, y) of every pixel, in pixels.

    >>> pixel_centers(1, 2)
    tensor([[[0.5000, 0.5000],
             [1.5000, 0.5000]]])
    """
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def sample_image(image: Float[Tensor, "H W C"], pixels: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points C"]:
    """Bilinear values of an image at continuous points, differentiable in both.

    Args:
        image: Values at the pixel centres.
        pixels: Points (x right, y down), px. Points beyond the outermost centres get the value of the nearest border
            point (and no gradient along the clamped axis).

    Returns:
        The C channels at each point. At a pixel centre it is that pixel's value.
    """
    return sample_images([image], pixels[None])[0]


def sample_images(
    images: Sequence[Float[Tensor, "H W C"]], pixels: Float[Tensor, "Q *points 2"]
) -> Float[Tensor, "Q *points C"]:
    """`sample_image` for Q images of one size, each read at its own points; the images are not copied."""
    height, width = images[0].shape[:2]
    column, left, right = _neighbours(pixels[..., 0], width)
    row, above, below = _neighbours(pixels[..., 1], height)
    # one gather an image: for the few thousand points that losses ask for, grid_sample spends its time on the image
    flat = torch.stack([above * width + left, above * width + right, below * width + left, below * width + right], 1)
    corners = torch.stack(
        [image.flatten(0, 1).index_select(0, each.flatten()) for image, each in zip(images, flat, strict=True)]
    ).reshape(*flat.shape, images[0].shape[2])
    upper_left, upper_right, lower_left, lower_right = corners.unbind(1)
    column, row = column[..., None], row[..., None]
    return torch.lerp(torch.lerp(upper_left, upper_right, column), torch.lerp(lower_left, lower_right, column), row)


def _neighbours(
    position: Float[Tensor, "*points"], size: int
) -> tuple[Float[Tensor, "*points"], Int[Tensor, "*points"], Int[Tensor, "*points"]]:
    """The two pixel centres around a position along one axis, and where between them it lies, in [0, 1]."""
    inside = (position - 0.5).clamp(0, size - 1)
    first = inside.detach().floor().clamp_max(max(size - 2, 0)).long()
    return inside - first, first, (first + 1).clamp_max(size - 1)
