"""Dynamic stage: a deformation carries the frozen Gaussians through the reference video."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from kg4d.data.batches.batch import DynamicBatch, step_generator
from kg4d.data.batches.dynamic import DynamicDataConfig
from kg4d.deform.base import CarriesKeypoints, DeformedGeometry
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.gaussians.model import GaussianModel
from kg4d.geometry.cameras import Cameras, project_each
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.lift.record import Lift
from kg4d.losses.flow.observations import ObservedPairs, RenderedModel
from kg4d.losses.flow.wgf import WgfConfig, wgf_losses
from kg4d.losses.kfc import (
    KeypointVisibility,
    KfcConfig,
    KfcMode,
    keypoint_loss,
    keypoint_sight,
    read_heatmaps,
    render_heatmaps,
)
from kg4d.losses.motion_priors import ArapConfig, BonesConfig, HandlesConfig, RigidityConfig, bone_loss
from kg4d.losses.photometric import PhotometricConfig, photometric_loss
from kg4d.optim.schedules import set_learning_rates, warm_cosine
from kg4d.ot.flow_targets import FlowField, flow_field
from kg4d.render.base import Renderer, RenderOutput
from kg4d.stages.base import Stage, psnr_of
from kg4d.stages.guidance import Guidance
from kg4d.stages.motion_terms import Rigidity, add_arap, add_handles
from kg4d.stages.objective import Objective


@dataclass
class DynamicConfig:
    """The dynamic stage.

    Attributes:
        steps: Optimiser steps.
        data: Frames drawn at each step.
        learning_rate: Adam rate of the deformation network.
        grid_learning_rate: Adam rate of its feature planes, where it has any.
        place_learning_rate: Adam rate of the places of keypoint frames, where it has any; world units a step.
        rotation_learning_rate: Adam rate of their rotations.
        light_learning_rate: Adam rate of the light, where the deformation has one.
        share_learning_rate: Adam rate of the keypoint features, where they say which frames a Gaussian follows.
        warmup_steps: Steps over which the rates grow linearly from 0.
        final_factor: Factor that the rates fall to, along a half cosine.
        photometric: The image loss, a mean over the drawn frames.
    """

    steps: int = 500
    data: DynamicDataConfig = field(default_factory=DynamicDataConfig)
    learning_rate: float = 3e-3
    grid_learning_rate: float = 6.4e-3
    place_learning_rate: float = 5e-3
    rotation_learning_rate: float = 1e-2
    light_learning_rate: float = 1e-2
    share_learning_rate: float = 2e-2
    warmup_steps: int = 20
    final_factor: float = 0.05
    photometric: PhotometricConfig = field(default_factory=lambda: PhotometricConfig(weight=4.0))


@dataclass
class MotionLosses:
    """The losses of the dynamic stage besides the image loss; `lift_weight` is that of the lifted keypoints."""

    kfc: KfcConfig = field(default_factory=KfcConfig)
    wgf: WgfConfig = field(default_factory=WgfConfig)
    rigidity: RigidityConfig = field(default_factory=RigidityConfig)
    bones: BonesConfig = field(default_factory=BonesConfig)
    handles: HandlesConfig = field(default_factory=HandlesConfig)
    lift_weight: float = 0.0
    arap: ArapConfig = field(default_factory=ArapConfig)


class DynamicStage(Stage[DynamicBatch]):
    """Fits `deformation` to the reference video; the Gaussians stay as the static stage left them.

    Args:
        model: The Gaussians.
        deformation: Moves them.
        renderer: Draws them.
        config: This stage.
        losses: KFC, WGF and the regularisers; KFC and WGF are off where the batches carry no keypoints.
        parents: Skeleton of the J keypoints; -1 cuts a bone.
        background: Colour behind the Gaussians.
        seed: Seed of what is sampled inside a step.
        guidance: Judges views that the video does not show; None where nothing does.
        lift: The video's keypoints in 3D, and which detections to believe; None where they were not lifted.
    """

    name = "dynamic"
    background: Tensor
    parents: Tensor
    after_backward_slice = "deformation"  # the hook in `objective` cuts off the part through renders and losses

    def __init__(
        self,
        model: GaussianModel,
        deformation: nn.Module,
        renderer: Renderer,
        config: DynamicConfig,
        losses: MotionLosses,
        parents: Tensor,
        background: Tensor,
        seed: int,
        guidance: Guidance | None = None,
        lift: Lift | None = None,
    ) -> None:
        super().__init__(renderer, config.steps, seed)
        self.model = model.requires_grad_(False)
        self.deformation = deformation
        if isinstance(deformation, SkinnedDeformation):
            model.keypoint_logits.requires_grad_(True)
        self.lift = lift
        self.config = config
        self.losses = losses
        self.guidance = guidance
        self.register_buffer("parents", parents, persistent=False)
        self.register_buffer("background", background, persistent=False)

    def on_train_start(self) -> None:
        """What the frozen Gaussians give once: their state, keypoints at rest, neighbours."""
        self.canonical = self.model.state().detach()
        self.share = assignment(self.canonical.keypoint_logits, self.losses.kfc.temperature)
        if isinstance(self.deformation, SkinnedDeformation):
            self.canonical = replace(self.canonical, keypoint_logits=self.model.keypoint_logits)  # these are learned
            self.rest_points = self.deformation.rest
        else:
            self.rest_points = barycentre(self.share, self.canonical.means)
        self.rigidity = Rigidity(self.losses.rigidity, self.canonical, self.seed)
        self._flow_fields = FlowFields()
        super().on_train_start()

    def configure_optimizers(self) -> Optimizer:
        """Adam; what is not the weights of a network has a rate of its own."""
        rates = self._base_rates()
        special: dict[str, list[nn.Parameter]] = getattr(self.deformation, "parameter_groups", dict)()
        named = {id(p) for members in special.values() for p in members}
        members_of = {"network": [p for p in self.deformation.parameters() if id(p) not in named], **special}
        members_of["shares"] = [p for p in [self.model.keypoint_logits] if p.requires_grad]
        groups: list[dict[str, object]] = [
            {"params": members, "lr": rates[name], "name": name} for name, members in members_of.items() if members
        ]
        if not groups:  # no motion: Adam wants a parameter all the same
            groups.append({"params": [nn.Parameter(torch.empty(0))], "lr": 0.0, "name": "network"})
        return torch.optim.Adam(groups, eps=1e-15)

    def _base_rates(self) -> dict[str, float]:
        config = self.config
        return {
            "network": config.learning_rate,
            "grid": config.grid_learning_rate,
            "places": config.place_learning_rate,
            "rotations": config.rotation_learning_rate,
            "light": config.light_learning_rate,
            "shares": config.share_learning_rate,
        }

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Warm-up and half cosine."""
        progress = step / max(1, self.steps)
        factor = warm_cosine(progress, step, self.config.warmup_steps, self.config.final_factor)
        set_learning_rates(optimizer, self._base_rates(), factor)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the lift too: one that is found again may come out otherwise, on a GPU or another processor."""
        super().on_save_checkpoint(checkpoint)
        if self.lift is not None:
            checkpoint["lift"] = self.lift.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the lift that this fit began with."""
        super().on_load_checkpoint(checkpoint)
        if "lift" in checkpoint:
            self.lift = Lift(**checkpoint["lift"]).to(self.renderer.device)

    def objective(self, batch: DynamicBatch, objective: Objective) -> None:
        """Image loss of the drawn frames; KFC in them; WGF between the pairs; rigidity and bones; guidance."""
        geometry: DeformedGeometry = self.deformation(self.canonical, batch.times)
        if geometry.means.requires_grad:
            # the engine reaches the deformation's outputs last: here ends the backward pass of renders and losses
            geometry.means.register_hook(lambda _: self.clock.mark("backward"))  # type: ignore[no-untyped-call]
        self.clock.mark("deformation")
        hidden = self.losses.kfc.visibility is KeypointVisibility.DEPTH
        outputs = [
            self.renderer(geometry.at(b, self.canonical), batch.cameras[b], background=self.background, depth=hidden)
            for b in range(len(batch.times))
        ]
        self.renders += len(outputs)
        self.clock.mark("render")
        self._add_photometric(outputs, batch, objective)
        points = cache(lambda: self._keypoints(geometry, batch.times))
        has_keypoints = batch.keypoints.shape[1] > 0
        if has_keypoints and self.losses.kfc.weight > 0:
            self._add_kfc(geometry, points, outputs, batch, objective)
        if (has_keypoints or not self.losses.wgf.at_keypoints) and self.losses.wgf.weight > 0:
            self._add_wgf(geometry, outputs, batch, objective)
        if self.lift is not None and self.losses.lift_weight > 0:
            offset = points() - self.lift.tracks[batch.frames]
            pull = self.lift.certainty[batch.frames] * offset.square().sum(-1)
            objective.add("lift", pull.mean(), self.losses.lift_weight)
        self._add_regularizers(geometry, points, batch, objective)
        if self.guidance is not None:
            self.renders += self.guidance.add(objective, batch.step, self._draw)

    def keypoints(self, times: Float[Tensor, " T"]) -> Float[Tensor, "T J 3"]:
        """Where the motion carries the keypoints, once training has begun."""
        return self._keypoints(self.deformation(self.canonical, times), times)

    def _draw(self, camera: Cameras, time: Tensor, background: Tensor) -> RenderOutput:
        return self.renderer(
            self.deformation(self.canonical, time).at(0, self.canonical), camera, background=background
        )

    def _add_photometric(self, outputs: list[RenderOutput], batch: DynamicBatch, objective: Objective) -> None:
        images = torch.cat([output.image for output in outputs])
        alphas = torch.cat([output.alpha for output in outputs])
        config = self.config.photometric
        objective.add(
            "photometric", photometric_loss(images, batch.images, alphas, batch.alphas, config), config.weight
        )
        objective.terms["psnr"] = psnr_of(images, batch.images)

    def _add_kfc(
        self,
        geometry: DeformedGeometry,
        points: Callable[[], Tensor],
        outputs: list[RenderOutput],
        batch: DynamicBatch,
        objective: Objective,
    ) -> None:
        kfc = self.losses.kfc
        match kfc.mode:
            case KfcMode.BARYCENTRE:
                pixels = project_each(points(), batch.cameras)
            case KfcMode.HEATMAP:
                heatmaps = [
                    render_heatmaps(self.renderer, geometry.at(b, self.canonical), batch.cameras[b], kfc)
                    for b in range(len(batch.times))
                ]
                self.renders += len(heatmaps)
                pixels = read_heatmaps(torch.cat(heatmaps), batch.cameras, kfc)
        weights, weight = batch.keypoint_weights, kfc.weight
        if kfc.visibility is KeypointVisibility.DEPTH:
            weights = weights * keypoint_sight(points(), batch.cameras, outputs, kfc)
        if self.lift is not None:
            weights, weight = weights * self.lift.trust[batch.frames], weight * self.lift.reliability
        loss = keypoint_loss(pixels, batch.keypoints, weights, float(max(batch.cameras.width, batch.cameras.height)))
        objective.add("kfc", loss, weight, kfc.warmup)

    def _keypoints(self, geometry: DeformedGeometry, times: Tensor) -> Tensor:
        if isinstance(self.deformation, CarriesKeypoints):
            return self.deformation.keypoints(times)
        return barycentre(self.share, geometry.means)

    def _add_wgf(
        self, geometry: DeformedGeometry, outputs: list[RenderOutput], batch: DynamicBatch, objective: Objective
    ) -> None:
        if len(batch.pairs) == 0:
            return
        wgf = self.losses.wgf
        model = RenderedModel(self.renderer, outputs, self.canonical.opacities, geometry)
        observed = ObservedPairs(
            batch.pairs, batch.cameras, batch.keypoints, batch.keypoint_weights, self._flow_fields.of(batch)
        )
        terms = wgf_losses(wgf, model, observed, step_generator(self.seed, "flow pixels", batch.step))
        for name, term in terms.items():
            objective.add(f"wgf_{name}", term.value, wgf.weight * term.weight, wgf.warmup)

    def _add_regularizers(
        self, geometry: DeformedGeometry, points: Callable[[], Tensor], batch: DynamicBatch, objective: Objective
    ) -> None:
        self.rigidity.add(objective, geometry, batch.step)
        bones = self.losses.bones
        if bones.weight > 0 and bool((self.parents >= 0).any()):
            objective.add("bones", bone_loss(points(), self.rest_points, self.parents), bones.weight)
        add_handles(objective, self.deformation, self.parents, self.losses.handles)
        add_arap(objective, self.deformation, batch.times, self.losses.arap)


class FlowFields:
    """Fields of the pairs that a stage has seen; each is formed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], FlowField] = {}

    def of(self, batch: DynamicBatch) -> list[FlowField] | None:
        """One for each pair; None without a dense flow."""
        if batch.flow is None or batch.flow_weights is None:
            return None
        names = list(zip(batch.frames[batch.pairs[:, 0]].tolist(), batch.strides.tolist(), strict=True))
        for index, name in enumerate(names):
            if name not in self._known:
                self._known[name] = flow_field(batch.flow[index], batch.flow_weights[index])
        return [self._known[name] for name in names]
