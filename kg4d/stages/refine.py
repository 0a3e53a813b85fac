"""Refine stage: colours are fine-tuned on the reference video; geometry and motion are frozen."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from kg4d.data.batches.refine import RefineBatch, RefineDataConfig
from kg4d.losses.photometric import PhotometricConfig, photometric_loss
from kg4d.optim.build import OptimizerConfig, ParameterGroup
from kg4d.optim.objective import Objective
from kg4d.optim.schedules import exponential, set_learning_rates
from kg4d.render.base import Renderer
from kg4d.representation.base import Representation
from kg4d.stages.base import Stage


@dataclass
class RefineConfig:
    """The refine stage.

    Attributes:
        steps: Optimiser steps; 0 leaves the stage out.
        data: Images drawn at each step.
        learning_rate: Adam rate of the colours.
        final_factor: Factor that the rate falls to.
        photometric: The image loss, for both kinds of images.
    """

    steps: int = 50
    data: RefineDataConfig = field(default_factory=RefineDataConfig)
    learning_rate: float = 2e-3
    final_factor: float = 0.2
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)


class RefineStage(Stage[RefineBatch]):
    """Fine-tunes the colours of a representation.

    Args:
        representation: The moving Gaussians.
        renderer: Draws them.
        config: This stage.
        background: Colour behind the Gaussians.
        seed: Unused by this stage's objective, kept with the run's other seeds.
        optimizer: Which optimiser takes the steps; Adam when None.
    """

    name = "refine"
    background: torch.Tensor

    def __init__(
        self,
        representation: Representation,
        renderer: Renderer,
        config: RefineConfig,
        background: Tensor,
        seed: int,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        super().__init__(renderer, config.steps, seed, optimizer or OptimizerConfig())
        self.representation = representation
        self.config = config
        self.register_buffer("background", background, persistent=False)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The colours alone."""
        return [ParameterGroup("colors", self.representation.colour_parameters(), self.config.learning_rate)]

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Exponential decay."""
        set_learning_rates(optimizer, exponential(step / max(1, self.steps), self.config.final_factor))

    def objective(self, batch: RefineBatch, objective: Objective) -> None:
        """Image loss of the drawn frames and of the drawn views."""
        frames, views = batch.frames, batch.views
        moving = self.representation.states(frames.times)
        first = self.representation.states(frames.times.new_zeros(1)).at(0)
        self.clock.mark("deformation")
        outputs, targets, mattes = [], [], []
        if frames.share > 0 or batch.share == 0:  # else another process has frames, and this one has views
            outputs.append(self.renderer.frames(moving, frames.cameras, background=self.background))
            targets.append(frames.images)
            mattes.append(frames.alphas)
        if views is not None and views.share > 0:
            outputs.append(self.renderer(first, views.cameras, background=self.background))
            targets.append(views.images)
            mattes.append(views.alphas)
        images, target = torch.cat([output.image for output in outputs]), torch.cat(targets)
        alphas = torch.cat([output.alpha for output in outputs])
        self.renders += len(images)
        self.clock.mark("render")
        config = self.config.photometric
        loss = photometric_loss(images, target, alphas, torch.cat(mattes), config)
        objective.add("photometric", loss, config.weight)
        self.measure(images, target)
