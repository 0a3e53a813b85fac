"""A textured object that moves as we say, and a cheap extractor of descriptors, so that no weights are needed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kg4d.geometry.sampling import pixel_centers, sample_image
from kg4d.priors.keypoints.features import FeatureMap, object_window

SIZE = 96


def texture(seed: int = 0) -> Tensor:
    """Smooth noise (64, 64, 3) in [0, 1]."""
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (64, 64), mode="bicubic", align_corners=False).clamp(0, 1)[0].permute(1, 2, 0)


def moved(points: Tensor, matrix: Tensor, translation: Tensor) -> Tensor:
    """Points of the object (pixels of its texture) in the image."""
    return (points - 32) @ matrix.T + SIZE / 2 + translation


def picture(matrix: Tensor | None = None, translation: Tensor | None = None, seed: int = 0) -> Tensor:
    """The textured disc of radius 28, rotated and stretched by `matrix`, then moved: straight RGBA (96, 96, 4)."""
    matrix = torch.eye(2) if matrix is None else matrix
    translation = torch.zeros(2) if translation is None else translation
    on_object = (pixel_centers(SIZE, SIZE) - SIZE / 2 - translation) @ torch.linalg.inv(matrix).T + 32
    alpha = (28.5 - (on_object - 32).norm(dim=-1)).clamp(0, 1)[..., None]
    return torch.cat([sample_image(texture(seed), on_object), alpha], dim=-1)


def rotation(degrees: float) -> Tensor:
    """A rotation in the image plane."""
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])


class PatchFeatures:
    """`FeatureExtractor` by the colours around a position, less their mean."""

    name = "features-patches"

    def __init__(self, side: int = 96, reach: int = 4) -> None:
        self.side, self.reach = side, reach

    def identity(self) -> dict[str, int]:
        return {"side": self.side, "reach": self.reach}

    def __call__(self, image: Tensor) -> FeatureMap:
        window = object_window(image, self.side, 8)
        crop = window.crop(image) - 0.5
        patches = F.unfold(F.avg_pool2d(crop, 3, 1, 1), 2 * self.reach + 1, padding=self.reach)
        patches = patches - patches.mean(1, keepdim=True)
        grid = F.normalize(patches[0], dim=0).reshape(-1, window.rows, window.columns).permute(1, 2, 0)
        return FeatureMap(window, [grid.contiguous()])
