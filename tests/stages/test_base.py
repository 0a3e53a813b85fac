"""The step that all stages share."""

from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.build import build_renderer
from kg4d.stages.base import Stage


class Numbered(NamedTuple):
    step: int
    share: float = 1.0


class Root(Stage[Numbered]):
    """Its loss, |x|, is finite at 0, and the gradient of how it is written is NaN there."""

    name = "root"

    def __init__(self, start: float) -> None:
        super().__init__(build_renderer("reference"), steps=2, seed=0, optimizer=OptimizerConfig())
        self.place = nn.Parameter(torch.tensor([start]))

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("place", [self.place], 1.0)]

    def objective(self, batch: Numbered, objective: Objective) -> None:
        self.measure(self.place.expand(2, 4, 4, 3), torch.zeros(2, 4, 4, 3))
        objective.add("root", self.place.square().sqrt().sum(), 1.0)

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        pass


def test_a_gradient_that_is_not_finite_stops_the_stage_before_it_moves_anything() -> None:
    stage = Root(1.0)
    optimizer = SGD([stage.place], lr=1.0)
    assert stage.take_step(Numbered(0), optimizer).terms["root"] == 1.0
    assert stage.place.item() == 0.0
    with pytest.raises(FloatingPointError, match=r"step 1 \(of place\)"):
        stage.take_step(Numbered(1), optimizer)
    assert stage.place.item() == 0.0


def test_the_logged_psnr_is_that_of_one_step() -> None:
    stage = Root(0.1)
    optimizer = SGD([stage.place], lr=0.09)
    for step, expected in enumerate((20.0, 40.0)):
        stage.take_step(Numbered(step), optimizer)
        assert stage.psnr.compute().item() == pytest.approx(expected, rel=1e-4)
