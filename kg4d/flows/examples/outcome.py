"""What every example ends with."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.flows.laws import whitened


class Row(NamedTuple):
    """One figure of an example's table."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None  # what it must not exceed; None where it is only told

    @property
    def verdict(self) -> str:
        """What the table says of it."""
        if self.at_most is None:
            return ""
        return f"<= {self.at_most:g}  {'yes' if self.value <= self.at_most else 'NO'}"


class Outcome(NamedTuple):
    """An example that has run."""

    rows: list[Row]
    draw: Callable[[Path], list[Path]]  # writes pictures into a folder and says which


def mirrored_normal(count: int, dim: int, generator: torch.Generator) -> Float[Tensor, "B d"]:
    """Normal points with mean 0 and covariance 1 exactly, in pairs z and -z: odd moments vanish as they should.

    Args:
        count: How many; even.
        dim: d.
        generator: Draws them.
    """
    z = torch.randn(count // 2, dim, generator=generator)
    return whitened(torch.cat([z, -z]))
