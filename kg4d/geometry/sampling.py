"""Reading an image between its pixels. The one place where the pixel-centre convention meets array indices.

`image[row, column]` is the value at the point (x, y) = (column + 0.5, row + 0.5); the image covers [0, W] x [0, H].
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample


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
    height, width = image.shape[:2]
    unit = pixels.reshape(1, 1, -1, 2) * 2 / pixels.new_tensor([width, height]) - 1  # image edges at -1 and 1
    sampled = grid_sample(
        image.permute(2, 0, 1)[None], unit, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0].mT.reshape(*pixels.shape[:-1], image.shape[2])
