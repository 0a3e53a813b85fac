"""Dynamic stage: a deformation carries the frozen Gaussians through the reference video."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kg4d.data.batch import DynamicBatch, step_generator
from kg4d.data.dynamic import DynamicDataConfig
from kg4d.deform.base import DeformedGeometry
from kg4d.gaussians.model import GaussianModel
from kg4d.gaussians.neighbours import nearest_neighbours
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.losses.kfc import KfcConfig, KfcMode, heatmap_keypoints, keypoint_loss, project_each
from kg4d.losses.photometric import PhotometricConfig, photometric_loss
from kg4d.losses.regularizers import BonesConfig, RigidityConfig, bone_loss, neighbour_weights, rigidity_loss
from kg4d.losses.wgf import DenseFlow, WgfConfig, wgf_losses
from kg4d.ot.flow_targets import flow_jacobian
from kg4d.render.base import Renderer, RenderOutput
from kg4d.stages.base import Stage, psnr_of
from kg4d.stages.objective import Objective
from kg4d.stages.optim import set_learning_rates, warm_cosine


@dataclass
class DynamicConfig:
    """The dynamic stage.

    Attributes:
        steps: Optimiser steps.
        data: Frames drawn at each step.
        learning_rate: Adam rate of the deformation network.
        grid_learning_rate: Adam rate of its feature planes, where it has any.
        warmup_steps: Steps over which the rates grow linearly from 0.
        final_factor: Factor that the rates fall to, along a half cosine.
        photometric: The image loss, a mean over the drawn frames.
    """

    steps: int = 500
    data: DynamicDataConfig = field(default_factory=DynamicDataConfig)
    learning_rate: float = 3e-3
    grid_learning_rate: float = 6.4e-3
    warmup_steps: int = 20
    final_factor: float = 0.05
    photometric: PhotometricConfig = field(default_factory=lambda: PhotometricConfig(weight=4.0))


@dataclass
class MotionLosses:
    """The losses of the dynamic stage besides the image loss."""

    kfc: KfcConfig = field(default_factory=KfcConfig)
    wgf: WgfConfig = field(default_factory=WgfConfig)
    rigidity: RigidityConfig = field(default_factory=RigidityConfig)
    bones: BonesConfig = field(default_factory=BonesConfig)


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
    ) -> None:
        super().__init__(renderer, config.steps, seed)
        self.model = model.requires_grad_(False)
        self.deformation = deformation
        self.config = config
        self.losses = losses
        self.register_buffer("parents", parents, persistent=False)
        self.register_buffer("background", background, persistent=False)

    def on_train_start(self) -> None:
        """What the frozen Gaussians give once: their state, keypoints at rest, neighbours."""
        self.canonical = self.model.state().detach()
        self.share = assignment(self.canonical.keypoint_logits, self.losses.kfc.temperature)
        self.rest_points = barycentre(self.share, self.canonical.means)
        if self.losses.rigidity.weight > 0:
            distances, self.neighbours = nearest_neighbours(self.canonical.means, self.losses.rigidity.neighbours)
            self.neighbour_weights = neighbour_weights(distances)
        self._jacobians: dict[int, Tensor] = {}
        super().on_train_start()

    def configure_optimizers(self) -> Optimizer:
        """Adam; feature planes have a rate of their own."""
        rates = self._base_rates()
        grids = {id(p) for p in getattr(self.deformation, "grid_parameters", list)()}
        groups: list[dict[str, object]] = []
        for name, members in (
            ("network", [p for p in self.deformation.parameters() if id(p) not in grids]),
            ("grid", [p for p in self.deformation.parameters() if id(p) in grids]),
        ):
            if members:
                groups.append({"params": members, "lr": rates[name], "name": name})
        if not groups:  # no motion: Adam wants a parameter all the same
            groups.append({"params": [nn.Parameter(torch.empty(0))], "lr": 0.0, "name": "network"})
        return torch.optim.Adam(groups, eps=1e-15)

    def _base_rates(self) -> dict[str, float]:
        return {"network": self.config.learning_rate, "grid": self.config.grid_learning_rate}

    def schedule(self, optimizer: Optimizer, step: int) -> None:
        """Warm-up and half cosine."""
        progress = step / max(1, self.steps)
        factor = warm_cosine(progress, step, self.config.warmup_steps, self.config.final_factor)
        set_learning_rates(optimizer, self._base_rates(), factor)

    def objective(self, batch: DynamicBatch, objective: Objective) -> None:
        """Image loss of the drawn frames; KFC in them; WGF between the pairs; rigidity and bones."""
        geometry: DeformedGeometry = self.deformation(self.canonical, batch.times)
        if geometry.means.requires_grad:
            # the engine reaches the deformation's outputs last: here ends the backward pass of renders and losses
            geometry.means.register_hook(lambda _: self.clock.mark("backward"))  # type: ignore[no-untyped-call]
        self.clock.mark("deformation")
        outputs = [
            self.renderer(geometry.at(b, self.canonical), batch.cameras[b], background=self.background)
            for b in range(len(batch.times))
        ]
        self.renders += len(outputs)
        self.clock.mark("render")
        self._add_photometric(outputs, batch, objective)
        has_keypoints = batch.keypoints.shape[1] > 0
        if has_keypoints and self.losses.kfc.weight > 0:
            self._add_kfc(geometry, batch, objective)
        if has_keypoints and self.losses.wgf.weight > 0:
            self._add_wgf(geometry, outputs, batch, objective)
        self._add_regularizers(geometry, batch.step, objective)

    def _add_photometric(self, outputs: list[RenderOutput], batch: DynamicBatch, objective: Objective) -> None:
        images = torch.cat([output.image for output in outputs])
        alphas = torch.cat([output.alpha for output in outputs])
        config = self.config.photometric
        objective.add(
            "photometric", photometric_loss(images, batch.images, alphas, batch.alphas, config), config.weight
        )
        objective.terms["psnr"] = psnr_of(images, batch.images)

    def _add_kfc(self, geometry: DeformedGeometry, batch: DynamicBatch, objective: Objective) -> None:
        kfc = self.losses.kfc
        match kfc.mode:
            case KfcMode.BARYCENTRE:
                pixels = project_each(barycentre(self.share, geometry.means), batch.cameras)
            case KfcMode.HEATMAP:
                reads = [
                    heatmap_keypoints(self.renderer, geometry.at(b, self.canonical), batch.cameras[b], kfc)
                    for b in range(len(batch.times))
                ]
                self.renders += len(reads)
                pixels = torch.cat(reads)
        loss = keypoint_loss(pixels, batch.keypoints, batch.keypoint_weights, _extent(batch))
        objective.add("kfc", loss, kfc.weight, kfc.warmup)

    def _add_wgf(
        self, geometry: DeformedGeometry, outputs: list[RenderOutput], batch: DynamicBatch, objective: Objective
    ) -> None:
        wgf, generator = self.losses.wgf, step_generator(self.seed, "flow pixels", batch.step)
        offsets, paired = [], []
        for index, (earlier, later) in enumerate(batch.pairs.tolist()):
            offset, match = wgf_losses(
                wgf,
                self.renderer,
                outputs[earlier],
                self.canonical.opacities,
                geometry,
                (earlier, later),
                batch.cameras,
                batch.keypoints[[earlier, later]],
                batch.keypoint_weights[[earlier, later]],
                self._dense_flow(batch, index),
                generator,
            )
            offsets.append(offset)
            if match is not None:
                paired.append(match)
        if offsets:
            objective.add("wgf_offset", torch.stack(offsets).mean(), wgf.weight, wgf.warmup)
        if paired:
            objective.add("wgf_paired", torch.stack(paired).mean(), wgf.weight * wgf.paired_weight, wgf.warmup)

    def _dense_flow(self, batch: DynamicBatch, index: int) -> DenseFlow | None:
        """The flow of a pair, known between neighbouring frames only; its Jacobian is formed once per frame."""
        if batch.flow is None or batch.flow_weights is None or int(batch.strides[index]) != 1:
            return None
        frame, flow, weights = int(batch.frames[batch.pairs[index, 0]]), batch.flow[index], batch.flow_weights[index]
        if frame not in self._jacobians:
            self._jacobians[frame] = flow_jacobian(flow, weights)
        return DenseFlow(flow, weights, self._jacobians[frame])

    def _add_regularizers(self, geometry: DeformedGeometry, step: int, objective: Objective) -> None:
        rigidity, bones = self.losses.rigidity, self.losses.bones
        if rigidity.weight > 0:
            samples = torch.randint(
                len(self.canonical), (rigidity.samples,), generator=step_generator(self.seed, "rigidity", step)
            ).to(geometry.means.device)
            loss = rigidity_loss(
                geometry.means,
                geometry.quats,
                self.canonical.means,
                self.canonical.quats,
                self.neighbours,
                self.neighbour_weights,
                samples,
            )
            objective.add("rigidity", loss, rigidity.weight)
        if bones.weight > 0 and bool((self.parents >= 0).any()):
            points = barycentre(self.share, geometry.means)
            objective.add("bones", bone_loss(points, self.rest_points, self.parents), bones.weight)


def _extent(batch: DynamicBatch) -> float:
    return float(max(batch.cameras.width, batch.cameras.height))
