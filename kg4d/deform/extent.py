"""The extent of a scene, which a deformation keeps from its birth on."""

from typing import Any

import torch
from torch import Tensor, nn


class Extent(nn.Module):
    """Half extent of a scene, world units, that positions are divided by.

    It is part of a checkpoint: Gaussians that are trained with their motion have another extent at the end, and a model
    that is read back must divide by what it was fitted with.
    """

    radius: Tensor

    def __init__(self, radius: float) -> None:
        """Keep `radius`.

        Raises:
            ValueError: It is not positive.
        """
        super().__init__()
        if not radius > 0:
            raise ValueError(f"the scene radius must be positive, got {radius}")
        self.register_buffer("radius", torch.tensor(radius))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}radius", self.radius)  # checkpoints of earlier versions have none
        super()._load_from_state_dict(state_dict, prefix, *args)
