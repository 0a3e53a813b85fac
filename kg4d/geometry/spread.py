"""Points that are far from one another."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def farthest_points(points: Float[Tensor, "N D"], count: int) -> Int[Tensor, " {count}"]:
    """Indices by farthest-point sampling: the first point, then each time the one farthest from all before.

    Raises:
        ValueError: `count` is not in [1, N].

    >>> farthest_points(torch.tensor([[0.0], [1.0], [5.0], [3.0]]), 3)
    tensor([0, 2, 3])
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"{len(points)} points cannot give {count} that are far apart")
    chosen = [0]
    distance = (points - points[0]).square().sum(-1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
    return torch.tensor(chosen, device=points.device)
