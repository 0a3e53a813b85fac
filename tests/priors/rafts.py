"""A stand-in for torchvision's RAFT, of which is known what it says."""

import torch
from torch import Tensor, nn

CHANNELS = 40  # of its feature encoder


class Raft(nn.Module):
    """In place of torchvision's: finds that each frame is the one before it, moved by (3, -2).

    Its feature encoder shows means of cells and, in the next channels, where each lies; its recurrent unit shows which
    way it looks, and how bright the frames are that it looks at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.feature_encoder, self.update_block = Encoder(), Unit()

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        self.seen.append(first)
        self.feature_encoder(torch.cat([first, second]))
        ahead = second.mean((1, 2, 3)) > first.mean((1, 2, 3))  # the frames get brighter
        for _iteration in range(2):
            self.update_block(first, second, ahead)
        flow = torch.tensor([3.0, -2.0]) * (2.0 * ahead[:, None] - 1)
        return [torch.zeros(2, 2, *first.shape[2:]), flow[..., None, None].expand(2, 2, *first.shape[2:])]


class Encoder(nn.Module):
    """Means of cells of 8 px, and 37 fixed functions of the place."""

    def forward(self, images: Tensor) -> Tensor:
        cells = nn.functional.avg_pool2d(images, 8)
        x = torch.linspace(-1, 1, cells.shape[3]).expand(*cells.shape[2:])
        waves = torch.stack([(frequency * x).sin() / frequency for frequency in range(1, CHANNELS - 2)])
        return torch.cat([cells, waves.expand(len(cells), -1, -1, -1)], dim=1)


class Unit(nn.Module):
    """Says which way, and the brightness here and there."""

    def forward(self, first: Tensor, second: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        shape = len(first), 1, first.shape[2] // 8, first.shape[3] // 8
        way, here, there = 2.0 * ahead - 1, first.mean((1, 2, 3)), second.mean((1, 2, 3))
        said = torch.cat([value[:, None, None, None].expand(shape) for value in (way, here, there)], dim=1)
        return said, said[:, :2]
