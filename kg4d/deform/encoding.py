"""Sines and cosines of position and of time: what lets a small network follow detail."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.deform.extent import Extent
from kg4d.deform.settings import HseConfig


class HarmonicEncoding(nn.Module):
    """[x,] sin(w_1 x), ..., sin(w_K x), cos(w_1 x), ..., cos(w_K x) of each coordinate."""

    frequencies: Tensor

    def __init__(self, frequencies: list[float], include_input: bool = True) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.tensor(frequencies, dtype=torch.float32), persistent=False)
        self.include_input = include_input

    def width(self, coordinates: int) -> int:
        """Number of features of that many coordinates."""
        return coordinates * (2 * len(self.frequencies) + self.include_input)

    def forward(self, values: Float[Tensor, "M D"]) -> Float[Tensor, "M F"]:
        """Encode each row."""
        phases = (values[..., None] * self.frequencies.to(values)).flatten(1)
        raw = [values] if self.include_input else []
        return torch.cat([*raw, phases.sin(), phases.cos()], dim=1)


class HSE(nn.Module):
    """HSE(mu, t): the encoding of the position beside that of the time, each with its own frequencies.

    The two parts are also available alone, because whoever feeds them to a linear layer need not repeat either.
    """

    def __init__(self, config: HseConfig, scene_radius: float) -> None:
        """Positions are divided by `scene_radius` (world units, > 0), so that they lie in about [-1, 1].

        Raises:
            ValueError: The radius is not positive, or nothing would be encoded.
        """
        super().__init__()
        self.extent = Extent(scene_radius)
        self._space = HarmonicEncoding(config.space_frequencies, config.include_input)
        self._time = HarmonicEncoding(config.time_frequencies, config.include_input)
        self.space_width, self.time_width = self._space.width(3), self._time.width(1)
        if self.space_width == 0 or self.time_width == 0:
            raise ValueError("the encoding is empty: give frequencies or include the input")

    def space(self, means: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Features of positions in world units."""
        features: Tensor = self._space(means / self.extent.radius)
        return features

    def time(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B F"]:
        """Features of times in [0, 1]."""
        features: Tensor = self._time(times[:, None])
        return features

    def forward(self, means: Float[Tensor, "N 3"], times: Float[Tensor, " B"]) -> Float[Tensor, "B N F"]:
        """Features of every Gaussian at every time, space first."""
        shape = (len(times), len(means), -1)
        return torch.cat([self.space(means).expand(shape), self.time(times)[:, None].expand(shape)], dim=-1)
