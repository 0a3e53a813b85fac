"""Static stage: Gaussians with keypoint features are fitted to the views of frame 0."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from kg4d.data.batches.batch import StaticBatch, step_generator
from kg4d.gaussians.far_side import MirroredFarSide
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.degrees import MOST_DEGREE
from kg4d.keypoints.barycentre import assignment, barycentre, compactness
from kg4d.losses.photometric import photometric_loss
from kg4d.losses.settings import DepthLossConfig, KeypointVisibility, KfcConfig
from kg4d.optim.build import ParameterGroup
from kg4d.optim.objective import Objective
from kg4d.optim.schedules import exponential, set_learning_rates
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.base import Renderer
from kg4d.stages.base import Stage
from kg4d.stages.calibration import add_calibration
from kg4d.stages.density import DensityControl
from kg4d.stages.guidance import Guidance
from kg4d.stages.settings import StaticConfig
from kg4d.utils.ranks import shared_out


class StaticStage(Stage[StaticBatch]):
    """Fits `model` to the views of frame 0 with the image loss and Keypoint Feature Calibration.

    Args:
        model: The Gaussians, shared with the later stages.
        renderer: Draws them.
        config: This stage.
        kfc: Keypoint Feature Calibration; off where the batches carry no keypoint weights.
        background: Colour behind the Gaussians.
        seed: Seed of density control.
        guidance: Judges views that the batches do not show; None where nothing does.
        optimizer: Which optimiser takes the steps; Adam when None.
        far_side: Adds the far side to `model`, which is then the near one; None where it has both.
        expected: Weight of what the far side expects of Gaussians that the view hardly shows, px.
        sh_warmup: Steps after which each further degree of spherical harmonics begins; 0 begins with all.
        depth: The depth loss; off when None, and where the batches have no depth.
    """

    name = "static"

    def __init__(
        self,
        model: GaussianModel,
        renderer: Renderer,
        config: StaticConfig,
        kfc: KfcConfig,
        background: torch.Tensor,
        seed: int,
        guidance: Guidance | None = None,
        optimizer: OptimizerConfig | None = None,
        far_side: MirroredFarSide | None = None,
        expected: float = 0.0,
        sh_warmup: int = 0,
        depth: DepthLossConfig | None = None,
    ) -> None:
        super().__init__(renderer, config.steps, seed, optimizer or OptimizerConfig())
        self.model = model
        self.config = config
        self.kfc = kfc
        self.guidance = guidance
        self.far_side = far_side
        self.expected = expected
        self.sh_warmup = sh_warmup
        self.depth = depth or DepthLossConfig()
        self.density = DensityControl(config.density, config.steps)
        self.register_buffer("background", background, persistent=False)

    def parameter_groups(self) -> list[ParameterGroup]:
        """One group a tensor: density control edits the optimiser's state of each."""
        keypoints = ParameterGroup("keypoint_logits", [self.model.keypoint_logits], self.kfc.learning_rate)
        return [*self.model.parameter_groups(self.config.learning_rates), keypoints]

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Exponential decay; the keypoint features stop when they are frozen."""
        rates, progress = self.config.learning_rates, step / max(1, self.steps)
        factors = {group["name"]: exponential(progress, rates.final_others) for group in optimizer.param_groups}
        factors["means"] = exponential(progress, rates.final_means)
        factors["keypoint_logits"] = 0.0 if progress >= self.kfc.freeze_after else 1.0
        set_learning_rates(optimizer, factors)

    def _state(self, step: int) -> GaussianState:
        """The Gaussians on all sides, with the harmonics that have begun."""
        state = self.model.state(min(step // self.sh_warmup, MOST_DEGREE) if self.sh_warmup > 0 else MOST_DEGREE)
        return state if self.far_side is None else self.far_side.completed(state)

    def objective(self, batch: StaticBatch, objective: Objective) -> None:
        """Image loss of the drawn views, and KFC in them; score distillation in others."""
        state, weights = self._state(batch.step), self.config.photometric
        images, background = self.backdrop(batch.images, batch.alphas, batch.step, weights)
        has_depth = self.depth.weight > 0 and batch.depth is not None
        output = self.renderer(
            state,
            batch.cameras,
            background=background,
            depth=has_depth or self.kfc.visibility is KeypointVisibility.DEPTH,
            absgrad=self.density.wants_absgrad,
        )
        self.renders += len(batch.cameras)
        self._output, self._share = output, batch.share
        self.clock.mark("render")
        loss = photometric_loss(output.image, images, output.alpha, batch.alphas, weights)
        objective.add("photometric", loss, weights.weight)
        if self.far_side is not None and self.expected > 0:
            objective.add("unexpected", self.far_side.unexpected(self.model.state()), self.expected)
        self.measure(output.image, images)
        self.add_depth(objective, output, batch.depth, batch.step, self.depth)
        if self.kfc.weight > 0 and batch.has_keypoints:
            self._calibrate(batch, objective)
        if self.guidance is not None:
            self.renders += self.guidance.add(
                objective,
                batch.step,
                lambda cameras, _, background: self.renderer(state, cameras, background=background),
            )

    def _calibrate(self, batch: StaticBatch, objective: Objective) -> None:
        state, kfc = self._state(batch.step), self.kfc
        if kfc.detach_geometry:
            state = replace(state.detach(), keypoint_logits=state.keypoint_logits)
        weights = assignment(state.keypoint_logits, kfc.temperature)
        with shared_out(self.ranks, batch.share > 0):
            self.renders += add_calibration(
                objective,
                kfc,
                lambda cameras, features: self.renderer(state, cameras, features=features),
                state.keypoint_logits,
                barycentre(weights, state.means).expand(len(batch.cameras), -1, -1),
                self._output,
                batch.cameras,
                batch.keypoints,
                batch.keypoint_weights,
                weight=kfc.weight,
            )
        if kfc.compactness > 0:
            objective.add("compactness", compactness(weights, state.means), kfc.compactness)

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Density control, with the gradients of this step's render."""
        self.density.after_backward(self._output, self.ranks, self._share)
        report = self.density.after_step(step, self.model, optimizer, step_generator(self.seed, "density", step))
        if any(report):
            self.record(step, {"gaussians": float(len(self.model))})

    def save_state(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of density control too, and whether the Gaussians are those of the near side alone."""
        checkpoint["density"] = self.density.state_dict()
        checkpoint["near_side"] = self.far_side is not None

    def load_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Take it up again."""
        self.density.load_state_dict(checkpoint["density"])
        if not checkpoint.get("near_side", False):  # checkpoints of earlier versions have both sides
            self.far_side = None
