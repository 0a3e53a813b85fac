"""Dynamic stage: the motion of the Gaussians is fitted to the reference video, on request together with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kg4d.data.batches.batch import DynamicBatch, step_generator
from kg4d.deform.base import Draft
from kg4d.flows.kernels import annealed
from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.settings import LearningRates
from kg4d.geometry.cameras import Cameras, project_each
from kg4d.lift.record import Lift
from kg4d.losses.coverage import matte_coverage_loss
from kg4d.losses.flow.observations import ObservedPairs, RenderedModel
from kg4d.losses.flow.settings import WgfConfig
from kg4d.losses.flow.wgf import wgf_losses
from kg4d.losses.motion_priors import Bones, bone_loss
from kg4d.losses.photometric import photometric_loss
from kg4d.losses.settings import (
    BonesConfig,
    CoverageConfig,
    DepthLossConfig,
    KeypointVisibility,
    KfcConfig,
    RigidityConfig,
)
from kg4d.optim.build import ParameterGroup, build_optimizer
from kg4d.optim.objective import Objective
from kg4d.optim.schedules import set_learning_rates, warm_cosine
from kg4d.optim.settings import OptimizerConfig, OptimizerKind
from kg4d.ot.flow_targets import FlowField, flow_field
from kg4d.render.base import Renderer, RenderOutput
from kg4d.representation.base import Representation
from kg4d.stages.base import Stage
from kg4d.stages.calibration import add_calibration
from kg4d.stages.density import DensityControl
from kg4d.stages.guidance import Guidance
from kg4d.stages.motion_map import motion_of
from kg4d.stages.motion_terms import Rigidity
from kg4d.stages.settings import DensityKind, DynamicConfig
from kg4d.utils.ranks import shared_out


@dataclass
class MotionLosses:
    """The losses of the dynamic stage besides the image loss; `lift_weight` is that of the lifted keypoints."""

    kfc: KfcConfig = field(default_factory=KfcConfig)
    wgf: WgfConfig = field(default_factory=WgfConfig)
    rigidity: RigidityConfig = field(default_factory=RigidityConfig)
    bones: BonesConfig = field(default_factory=BonesConfig)
    lift_weight: float = 0.0
    coverage: CoverageConfig = field(default_factory=CoverageConfig)
    depth: DepthLossConfig = field(default_factory=DepthLossConfig)


class DynamicStage(Stage[DynamicBatch]):
    """Fits the motion of `representation` to the reference video.

    Args:
        representation: What moves.
        renderer: Draws it.
        config: This stage.
        losses: KFC, WGF, coverage, depth and the regularisers; KFC and WGF are off where the batches carry no
            keypoints, and depth where they carry none.
        parents: Skeleton of the J keypoints; -1 cuts a bone.
        background: Colour behind the Gaussians.
        seed: Seed of what is sampled inside a step.
        guidance: Judges views that the video does not show; None where nothing does.
        lift: The video's keypoints in 3D, and which detections to believe; None where they were not lifted.
        optimizer: Which optimiser takes the steps; Adam when None.
        gaussian_rates: Learning rates of the Gaussians of frame 0; None freezes them.
        frame_distance: Mean distance of two frames of the video, for noise on times.
        name: Of the stage, in checkpoints and logs.
        windows: Times of the first and the last frame of each window that is fitted by itself; one is all of the clip.
    """

    name = "dynamic"
    background: Tensor
    parents: Tensor
    after_backward_slice = "deformation"  # the hook in `objective` cuts off the part through renders and losses

    def __init__(
        self,
        representation: Representation,
        renderer: Renderer,
        config: DynamicConfig,
        losses: MotionLosses,
        parents: Tensor,
        background: Tensor,
        seed: int,
        guidance: Guidance | None = None,
        lift: Lift | None = None,
        optimizer: OptimizerConfig | None = None,
        gaussian_rates: LearningRates | None = None,
        frame_distance: float = 0.0,
        windows: Sequence[tuple[float, float]] = ((0.0, 1.0),),
        name: str = "dynamic",
    ) -> None:
        super().__init__(renderer, config.steps * len(windows), seed, optimizer or OptimizerConfig())
        self.name = name
        self.windows = tuple(windows)
        self._window = -1  # none is begun
        self.representation = representation
        self.gaussian_rates = gaussian_rates
        self.density = DensityControl(config.density, config.steps, "dynamic.density")
        self.lift = lift
        self.config = config
        self.losses = losses
        self.guidance = guidance
        self.frame_distance = frame_distance
        self.register_buffer("parents", parents, persistent=False)
        self.register_buffer("background", background, persistent=False)

    def parameter_groups(self) -> list[ParameterGroup]:
        """What moves the Gaussians, and the Gaussians where they are not frozen."""
        rest = [] if self.gaussian_rates is None else self.representation.rest_groups(self.gaussian_rates)
        return [*self.representation.motion_groups(), *rest]

    def configure_optimizers(self) -> Optimizer:
        """The optimiser of the stage's parameter groups, told what moves if it measures its steps by that."""
        config = self.optimizer_config
        if config.kind is not OptimizerKind.RPWGF:
            return super().configure_optimizers()
        motion = motion_of(self.representation, config.rpwgf.points, self.seed)
        return build_optimizer(config, self.parameter_groups(), motion)

    def begin(self) -> None:
        """Form what the Gaussians at rest give once: keypoints, neighbours."""
        super().begin()
        rest = self.representation.rest().detach()
        with torch.no_grad():
            self.rest_points = self.representation.keypoints(rest.means.new_zeros(1), MovingGaussians.still(rest, 1))[0]
        self.rigidity = Rigidity(self.losses.rigidity, rest, self.seed)
        self.bones = Bones.of(self.parents)
        self._flow_fields = FlowFields()

    def progress(self, step: int) -> float:
        """How much of the window lies before a step."""
        return self._step_of_window(step) / max(1, self.config.steps)

    def _step_of_window(self, step: int) -> int:
        return step % max(1, self.config.steps)

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Warm-up and half cosine, in each window."""
        if len(self.windows) > 1 and step // self.config.steps != self._window:
            self._window = step // self.config.steps
            self.representation.focus(self.windows[self._window], optimizer)
        warmup, final = self.config.warmup_steps, self.config.final_factor
        set_learning_rates(optimizer, warm_cosine(self.progress(step), self._step_of_window(step), warmup, final))

    def save_state(self, checkpoint: dict[str, Any]) -> None:
        """Keep the lift too: one that is found again may come out otherwise, on a GPU or another processor."""
        checkpoint["density"] = self.density.state_dict()
        checkpoint["window"] = self._window
        if self.lift is not None:
            checkpoint["lift"] = self.lift.state()

    def load_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on with the lift that this fit began with."""
        self._window = checkpoint.get("window", -1)
        if "density" in checkpoint:
            self.density.load_state_dict(checkpoint["density"])
        if "lift" in checkpoint:
            self.lift = Lift.from_state(checkpoint["lift"]).to(self.renderer.device)

    def objective(self, batch: DynamicBatch, objective: Objective) -> None:
        """Image loss of the drawn frames; KFC and coverage in them; WGF between the pairs; regularisers; guidance."""
        moving = self.representation.states(self._asked(batch))
        draft = self.representation.draft()
        if moving.means.requires_grad:
            # the engine reaches the outputs of the motion last: here ends the backward pass of renders and losses
            moving.means.register_hook(lambda _: self.clock.mark("backward"))  # type: ignore[no-untyped-call]
            if self.density.config.kind is DensityKind.ADAPTIVE:
                moving.means.retain_grad()
        self.clock.mark("deformation")
        hidden = self.losses.kfc.visibility is KeypointVisibility.DEPTH
        has_depth = self.losses.depth.weight > 0 and batch.depth is not None
        images, background = self.backdrop(batch.images, batch.alphas, batch.step, self.config.photometric)
        batch = replace(batch, images=images)
        output = self.renderer.frames(moving, batch.cameras, background=background, depth=hidden or has_depth)
        self.renders += len(moving)
        self.clock.mark("render")
        everything = moving, output, batch
        if batch.part.own is not None:  # from here on without the frames that are there for the pairs alone
            moving, output, batch = moving.first(batch.part.own), output.first(batch.part.own), batch.counted()
        self._drawn = everything[0], output, batch
        self._add_photometric(output, batch, objective)
        self.add_depth(objective, output, batch.depth, batch.step, self.losses.depth)
        if draft is not None:
            self._add_draft(draft, output, batch, background, objective)
        points = cache(lambda: self.representation.keypoints(batch.times, moving))
        has_keypoints = batch.keypoints.shape[1] > 0
        if has_keypoints and self.losses.kfc.weight > 0:
            self._add_kfc(moving, points, output, batch, objective)
        if (has_keypoints or not self.losses.wgf.at_keypoints) and self.losses.wgf.weight > 0:
            self._add_wgf(*everything, objective)
        if self.lift is not None and self.losses.lift_weight > 0:
            offset = points() - self.lift.tracks[batch.frames]
            pull = self.lift.track_confidence[batch.frames] * offset.square().sum(-1)
            objective.add("lift", pull.mean(), self.losses.lift_weight)
        if self.losses.coverage.weight > 0:
            self._add_coverage(moving, batch, objective)
        self._add_regularizers(moving, points, batch, objective)
        if self.guidance is not None:
            self.renders += self.guidance.add(objective, batch.step, self._draw)

    def _asked(self, batch: DynamicBatch) -> Tensor:
        """The times that the motion is asked for: those of the batch, with noise at first."""
        if self.config.time_noise <= 0:
            return batch.times
        noise = torch.randn(len(batch.times), generator=step_generator(self.seed, "time noise", batch.step))
        size = self.config.time_noise * self.frame_distance * (1 - self.progress(batch.step))
        return (batch.times + size * noise.to(batch.times)).clamp(0, 1)

    def before_step(self) -> None:
        """Leave alone what earlier windows see, and let density control see the gradients in space and time."""
        if self._window > 0:
            self.representation.hold_before(self.windows[self._window][0])
        if self.gaussian_rates is not None:
            self.density.before_step(self.representation.editable())

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Density control, with the gradients of this step's frames; after the last window all come together."""
        if self.gaussian_rates is not None:
            self._control_density(step, optimizer)
        if len(self.windows) > 1 and step == self.steps - 1:
            self.representation.focus(None, optimizer)

    def _control_density(self, step: int, optimizer: Optimizer) -> None:
        moving, output, batch = self._drawn
        self.density.after_frames(moving, batch.cameras, output, self.ranks, batch.share)
        gaussians, generator = self.representation.editable(), step_generator(self.seed, "density in motion", step)
        if gaussians is None:
            return
        report = self.density.after_step(self._step_of_window(step), gaussians, optimizer, generator)
        if any(report):
            self.record(step, {"gaussians": float(len(gaussians))})
            self.rigidity = Rigidity(self.losses.rigidity, self.representation.rest().detach(), self.seed)

    def _draw(self, cameras: Cameras, times: Tensor, background: Tensor) -> RenderOutput:
        return self.renderer.frames(self.representation.states(times), cameras, background=background)

    def _add_photometric(self, output: RenderOutput, batch: DynamicBatch, objective: Objective) -> None:
        config = self.config.photometric
        loss = photometric_loss(output.image, batch.images, output.alpha, batch.alphas, config)
        objective.add("photometric", loss, config.weight)
        self.measure(output.image, batch.images)

    def _add_draft(
        self, draft: Draft, output: RenderOutput, batch: DynamicBatch, background: Tensor, objective: Objective
    ) -> None:
        """The image loss of a motion's other branch, and what draws both branches to each other where they are seen."""
        config, count = self.config.photometric, len(batch.cameras)
        drawn = self.renderer.frames(draft.moving.first(count), batch.cameras, background=background)
        self.renders += count
        loss = photometric_loss(drawn.image, batch.images, drawn.alpha, batch.alphas, config)
        objective.add("photometric_draft", loss, config.weight * draft.photometric_weight)
        seen = (output.radii > 0).all(-1)
        apart = (draft.apart[:count] * seen).sum() / seen.sum().clamp_min(1)
        objective.add("mutual", apart, draft.mutual_weight)

    def _add_kfc(
        self,
        moving: MovingGaussians,
        points: Callable[[], Tensor],
        output: RenderOutput,
        batch: DynamicBatch,
        objective: Objective,
    ) -> None:
        kfc = self.losses.kfc
        weights, weight = batch.keypoint_weights, kfc.weight
        if self.lift is not None:
            weights = weights * self.lift.detection_confidence[batch.frames]
            weight = weight * self.lift.overall_confidence
        with shared_out(self.ranks, batch.share > 0):
            self.renders += add_calibration(
                objective,
                kfc,
                lambda cameras, features: self.renderer.frames(moving, cameras, features=features),
                moving.base.keypoint_logits,
                points(),
                output,
                batch.cameras,
                batch.keypoints,
                weights,
                weight=weight,
                warmup=kfc.warmup,
            )

    def _add_wgf(
        self, moving: MovingGaussians, output: RenderOutput, batch: DynamicBatch, objective: Objective
    ) -> None:
        if len(batch.pairs) == 0:
            return
        wgf = self.losses.wgf
        model = RenderedModel(self.renderer, output, moving)
        observed = ObservedPairs(
            batch.pairs,
            batch.cameras,
            batch.keypoints,
            batch.keypoint_weights,
            self._flow_fields.of(batch),
            batch.part.pairs,
            batch.part.step_pairs,
        )
        generator = step_generator(self.seed, "flow pixels", batch.step)
        with shared_out(self.ranks, batch.part.pairs_count):
            terms = wgf_losses(wgf, model, observed, generator)
        for name, term in terms.items():
            objective.add(f"wgf_{name}", term.value, wgf.weight * term.weight, wgf.warmup, shared_out=True)

    def _add_coverage(self, moving: MovingGaussians, batch: DynamicBatch, objective: Objective) -> None:
        coverage, generator = self.losses.coverage, step_generator(self.seed, "coverage", batch.step)
        count = moving.means.shape[1]
        chosen = torch.randperm(count, generator=generator)[: coverage.points].to(moving.means.device)
        opacities = moving.base.opacities.expand(len(moving), -1) if moving.opacities is None else moving.opacities
        whole = batch.step_alphas is None
        loss = matte_coverage_loss(
            project_each(moving.means[:, chosen], batch.cameras),
            opacities[:, chosen].detach(),
            batch.alphas if batch.step_alphas is None else batch.step_alphas,
            annealed(coverage.start, coverage.end, objective.progress),
            coverage.points,
            generator,
            slice(None) if whole else slice(batch.place, batch.place + len(moving)),
        )
        objective.add("coverage", loss, coverage.weight)

    def _add_regularizers(
        self, moving: MovingGaussians, points: Callable[[], Tensor], batch: DynamicBatch, objective: Objective
    ) -> None:
        self.rigidity.add(objective, moving, self.representation.rest().detach(), batch.step)
        bones = self.losses.bones
        if bones.weight > 0 and len(self.bones.children):
            objective.add("bones", bone_loss(points(), self.rest_points, self.bones), bones.weight)
        self.representation.regularisers(objective, batch.times)


class FlowFields:
    """Fields of the pairs that a stage has seen; each is formed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], FlowField] = {}

    def of(self, batch: DynamicBatch) -> list[FlowField] | None:
        """One for each pair; None without a dense flow."""
        if batch.flow is None or batch.flow_weights is None:
            return None
        for index, name in enumerate(batch.pair_names):
            if name not in self._known:
                self._known[name] = flow_field(batch.flow[index], batch.flow_weights[index])
        return [self._known[name] for name in batch.pair_names]
