"""Small networks that move keypoints smoothly in space and time: where a lift starts."""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.deform.encoding import HSE
from kg4d.deform.settings import HseConfig

_WIDTH, _DEPTH = 64, 4
_ENCODING = HseConfig([math.pi, 2 * math.pi], [math.pi, 2 * math.pi])


class HarmonicTranslations(nn.Module):
    """S networks side by side, each from the encoding HSE(rest, t) of J keypoints to their translations since rest.

    The last layer starts at zero, and so do the translations.

    Args:
        count: Number S of networks.
        rest: Keypoints at rest, world units.
        generator: Source of the initial weights (CPU).
    """

    def __init__(self, count: int, rest: Float[Tensor, "J 3"], generator: torch.Generator) -> None:
        super().__init__()
        self._encoding = HSE(_ENCODING, float(rest.abs().max().clamp_min(1e-3)))
        self._rest = rest
        widths = [self._encoding.space_width + self._encoding.time_width, *[_WIDTH] * _DEPTH, 3]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            bound = (0.0 if outputs == 3 else 1.0) / math.sqrt(inputs)
            for shape, into in (((count, inputs, outputs), self.weights), ((count, 1, outputs), self.biases)):
                values = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                into.append(nn.Parameter(values.to(rest)))

    def forward(self, times: Float[Tensor, " T"]) -> Float[Tensor, "S T J 3"]:
        """Translations at times in [0, 1], world units."""
        x: Tensor = self._encoding(self._rest, times).flatten(0, 1)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if index < _DEPTH:
                x = x.relu()
        return x.reshape(len(x), len(times), len(self._rest), 3)
