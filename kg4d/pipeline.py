"""The method from end to end: scene, static stage, dynamic stage, refine stage, metrics, exports, record."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.config.schema import ExperimentConfig, ExportFormat
from kg4d.data.batches.dynamic import DynamicDataModule
from kg4d.data.batches.refine import RefineDataModule
from kg4d.data.batches.static import StaticDataModule, static_references
from kg4d.data.records import PosedImages, view_grid
from kg4d.data.studies.frame_subset import choose_frames
from kg4d.deform.identity import StaticDeformation
from kg4d.deform.skinned import SkinnedDeformation
from kg4d.errors import InputError
from kg4d.gaussians.build import build_gaussians
from kg4d.gaussians.model import GaussianModel
from kg4d.geometry.cameras import project_each
from kg4d.keypoints.sides import other_sides
from kg4d.lift.handles import refit_keypoints, rest_keypoints, start_handles
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton, reconcile_views, seed_keypoints
from kg4d.lift.solve import lift_keypoints
from kg4d.lift.surface import SurfaceTracks, follow_surface
from kg4d.metrics.suite import Evaluation, write_metrics_json
from kg4d.priors.cache.store import PriorCache
from kg4d.runs.build import (
    build_run_deformation,
    build_run_guidance,
    build_run_renderer,
    build_scene,
    check_run_guidance,
)
from kg4d.runs.environment import environment, peak_memory_bytes, training_seconds
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.folder import RunFolder, variant_of
from kg4d.runs.measure import measure, run_protocol
from kg4d.runs.outputs import export, write_preview
from kg4d.stages.base import Stage
from kg4d.stages.dynamic import DynamicConfig, DynamicStage, MotionLosses
from kg4d.stages.dynamic_start import Trial, preferred, seen_about, tried
from kg4d.stages.guidance import Guidance
from kg4d.stages.refine import RefineStage
from kg4d.stages.runner import StageData, StageRecord, has_begun, run_stage
from kg4d.stages.static import StaticStage
from kg4d.tracking.tracker import StageLogger, Tracker
from kg4d.utils.logs import log_to_file

_log = logging.getLogger(__name__)

T = TypeVar("T")


def fit(config: ExperimentConfig, *, resume: bool = False) -> Path:
    """Fit one scene under one configuration; returns the run folder.

    Args:
        config: A single run: its `seed`, and at most one entry in `variants`, which names it.
        resume: Go on with the run in that folder: finished stages are loaded, the one cut short goes on from its last
            checkpoint, and a run that is done stays as it is.

    Raises:
        InputError: The configuration or the scene is wrong.
        KeyboardInterrupt: A signal came; a checkpoint was written.
    """
    folder = RunFolder.of(config)
    resume = resume and folder.holds_run_of(config)
    if resume and folder.metrics.exists() and folder.record.exists():
        _log.info("%s: already done", folder.path)
        return folder.path
    with log_to_file(folder.log):
        ready = _Fit(config, folder)  # before an earlier run in that folder is cleared away: the request may be wrong
        if not resume:
            folder.begin(config)
        with Tracker.of(config, folder.path) as tracker:
            ready.run(tracker)
    return folder.path


class _Fit:
    """One fit while it runs."""

    tracker: Tracker

    def __init__(self, config: ExperimentConfig, folder: RunFolder) -> None:
        """Get everything ready that a wrong request can break, so that it breaks before the first step."""
        self.config, self.folder = config, folder
        self.stages: dict[str, StageRecord] = {}
        begin = time.perf_counter()
        lightning.seed_everything(config.seed, verbose=False)
        self.protocol = run_protocol(config)
        self.renderer = build_run_renderer(config)
        self.background = torch.tensor(config.background, device=self.renderer.device)
        check_run_guidance(config)
        self.whole_scene = build_scene(config, self.renderer)  # what is measured and shown
        if self.whole_scene.test is not None:
            view_grid(self.whole_scene.test)  # the metrics need complete videos
        self.scene = choose_frames(self.whole_scene, config.frames)
        self.priors = PriorCache(config.priors.cache)
        self.guidance = build_run_guidance(config, self.scene, self.renderer.device, self.priors)
        self.model, self.skeleton = self._initial_gaussians()
        self._check_neighbours()
        build_run_deformation(config, self.model)
        where = (self.background.cpu(), config.seed)
        self.static_data = StaticDataModule(self.scene, config.static.data, *where)
        self.dynamic_data = DynamicDataModule(self.scene, config.dynamic.data, *where)
        self.refine_data = RefineDataModule(self.scene, config.refine.data, *where)
        self.seconds = {"setup": time.perf_counter() - begin}

    def run(self, tracker: Tracker) -> None:
        """KG4D figure 2, from left to right."""
        self.tracker = tracker
        begin = time.perf_counter()
        self._fit_static()
        self._check_neighbours()  # density control may have taken some away
        deformation = build_run_deformation(self.config, self.model)
        if self.config.deformation.anchor_first and len(set(static_references(self.scene).images.frames.tolist())) > 1:
            _log.warning("the static stage saw several moments: consider deformation.anchor_first=false for this scene")
        self._fit_dynamic(deformation)
        self._fit_refine(deformation)
        fitted = self._fitted(deformation)
        evaluation = self._timed("evaluation", lambda: self._evaluate(fitted))
        self._timed("export", lambda: self._export(fitted))
        self.seconds["total"] = self.seconds["setup"] + time.perf_counter() - begin
        self._record()
        write_metrics_json(self.folder.metrics, evaluation, self.protocol)

    def _initial_gaussians(self) -> tuple[GaussianModel, Skeleton]:
        """The Gaussians before any training, with seeded keypoint features, and the skeleton between the keypoints."""
        config, scene = self.config, self.scene
        keypoints, ring, first = scene.keypoints, scene.ring, static_references(scene).images
        views = first if bool((first.frames == 0).all()) else None  # other moments would carve the moving parts away
        model = build_gaussians(
            config.gaussians,
            None if views is None else views.cameras,
            None if views is None else views.images,
            0 if keypoints is None else len(keypoints.names),
            torch.Generator().manual_seed(config.seed),
        )
        if keypoints is None:
            nothing = torch.zeros(0, dtype=torch.int64)
            return model.to(self.renderer.device), Skeleton(nothing.bool(), nothing, torch.zeros(0, 3))
        keypoints = reconcile_views(keypoints, ring)
        skeleton = seed_keypoints(model, ring, keypoints, config.kfc, scene.reference.cameras[0])
        # a keypoint that no view of frame 0 shows has no place on the model: no loss may ask for it later
        used = replace(keypoints, weights=keypoints.weights * skeleton.known)
        self.scene = replace(scene, keypoints=used)
        return model.to(self.renderer.device), skeleton

    def _check_neighbours(self) -> None:
        rigidity, count = self.config.rigidity, len(self.model)
        if rigidity.weight > 0 and rigidity.neighbours >= count:
            what = f"{rigidity.neighbours} neighbours of each Gaussian, but there are only {count} Gaussians"
            raise InputError("rigidity.neighbours", what, "lower it, or set rigidity.weight=0")

    def _fit_static(self) -> None:
        config = self.config
        where = (self.background, config.seed, self.guidance.get(StaticStage.name))
        stage = StaticStage(self.model, self.renderer, config.static, config.kfc, *where)
        self._run(stage, self.static_data, StaticDeformation(), static_references(self.scene).images)

    def _fit_dynamic(self, deformation: nn.Module) -> None:
        # before the keypoint features become shares of frames
        rest = rest_keypoints(self.model, self.skeleton, self.config.kfc.temperature)
        begun = has_begun(DynamicStage.name, self.folder.checkpoints)  # then its checkpoint has the lift
        lift = None if begun else self._timed("lift", lambda: self._lift(rest))
        guidance = self.guidance.get(DynamicStage.name)
        stage = self._dynamic_stage(deformation, rest, lift, self.config.dynamic, guidance)
        self._run(stage, self.dynamic_data, deformation, self.scene.reference)
        if isinstance(deformation, SkinnedDeformation) and stage.lift is not None:
            refit_keypoints(deformation, stage.lift, self.scene.reference.cameras.to(rest.device))

    def _lift(self, rest: Float[Tensor, "J 3"]) -> Lift | None:
        """The keypoints of the video in 3D, where that is asked for; where lifts differ, the images decide."""
        config, keypoints, video = self.config, self.scene.keypoints, self.scene.reference
        if keypoints is None or config.lift.steps == 0:
            return None
        steps = min(config.lift.trial_steps, config.dynamic.steps)
        hints = (self._followed_surface(), other_sides(keypoints.names))

        def lifted(uv: Float[Tensor, "T J 2"], weights: Float[Tensor, "T J"]) -> Lift:
            where = (config.lift, rest.cpu(), self.skeleton.parents, uv, weights, video.cameras, video.times)
            return lift_keypoints(*where, torch.Generator().manual_seed(config.seed), *hints).to(rest.device)

        def trial_of(start: Lift) -> Trial:
            short = replace(config.dynamic, steps=steps)
            stage = self._dynamic_stage(build_run_deformation(config, self.model), rest, start, short, None)
            return tried(stage, self.dynamic_data.dataset.batch, video.times.to(rest))

        def lifted_from(places: Float[Tensor, "T J 3"]) -> Lift:
            return lifted(project_each(places.cpu(), video.cameras), seen_about(keypoints.weights))

        lift = lifted(keypoints.uv, keypoints.weights)
        return preferred(lift, trial_of, lifted_from) if steps > 0 else lift

    def _dynamic_stage(
        self,
        deformation: nn.Module,
        rest: Float[Tensor, "J 3"],
        lift: Lift | None,
        dynamic: DynamicConfig,
        guidance: Guidance | None,
    ) -> DynamicStage:
        """One from rest; a skinned motion starts at the lift, where there is one."""
        config, parents = self.config, self.skeleton.parents
        if isinstance(deformation, SkinnedDeformation):
            times = self.scene.reference.times.to(rest)
            start_handles(deformation, self.model, self.skeleton, rest, times, lift)
        losses = MotionLosses(
            config.kfc, config.wgf, config.rigidity, config.bones, config.handles, config.lift.weight, config.arap
        )
        where = (self.background, config.seed, guidance, lift)
        return DynamicStage(self.model, deformation, self.renderer, dynamic, losses, parents, *where)

    @torch.no_grad()
    def _followed_surface(self) -> SurfaceTracks | None:
        """Points on the Gaussians of frame 0, followed along the video's flow; None without one."""
        config, scene = self.config, self.scene
        if scene.flow is None or config.lift.surface == 0:
            return None
        camera = scene.reference.cameras[0]
        there = camera.to(self.renderer.device)
        drawn = self.renderer(self.model.state(), there, background=self.background, depth=True)
        assert drawn.depth is not None
        generator = torch.Generator().manual_seed(config.seed)
        return follow_surface(
            drawn.depth[0].cpu(), drawn.alpha[0].cpu(), camera, scene.flow, config.lift.surface, generator
        )

    def _fit_refine(self, deformation: nn.Module) -> None:
        config = self.config
        stage = RefineStage(self.model, deformation, self.renderer, config.refine, self.background, config.seed)
        self._run(stage, self.refine_data, deformation, self.scene.reference)

    def _fitted(self, deformation: nn.Module) -> FittedModel:
        temperature = self.config.kfc.temperature
        return FittedModel(self.model.state().detach(), deformation, self.renderer, self.background, temperature)

    def _run(self, stage: Stage[Any], data: StageData, deformation: nn.Module, shown: PosedImages) -> None:
        """Run a stage, with previews against the images in `shown`."""

        def draw(step: int) -> None:
            path = self.folder.previews / f"{stage.name}_{step:05d}.png"
            picture = write_preview(path, self._fitted(deformation), shown)
            self.tracker.image(f"preview/{stage.name}", picture, step)

        _log.info("%s: %d steps", stage.name, stage.steps)
        self.stages[stage.name] = run_stage(
            stage,
            data,
            folder=self.folder.checkpoints,
            config=self.config.trainer,
            logger=StageLogger(self.tracker, stage.name),
            draw=draw,
        )
        stage.to(self.renderer.device)  # its Trainer leaves it on the CPU

    def _timed(self, name: str, call: Callable[[], T]) -> T:
        begin = time.perf_counter()
        result = call()
        self.seconds[name] = time.perf_counter() - begin
        return result

    def _evaluate(self, fitted: FittedModel) -> Evaluation:
        evaluation = measure(self.config, fitted, self.whole_scene)
        for reason in dict.fromkeys(evaluation.skipped.values()):
            keys = [key for key, why in evaluation.skipped.items() if why == reason]
            _log.info("not measured: %s (%s)", ", ".join(keys), reason)
        self.tracker.summary(evaluation.metrics)
        return evaluation

    def _export(self, fitted: FittedModel) -> None:
        config = self.config.export
        written = export(config.formats, self.folder.export, fitted, self.whole_scene, config.fps)
        for path in written.get(ExportFormat.MP4.value, []):
            self.tracker.video(f"video/{path.stem}", path)

    def _record(self) -> None:
        self.folder.write_record(
            {
                "name": self.config.name,
                "variant": variant_of(self.config),
                "seed": self.config.seed,
                "scene": self.config.scene,
                **environment(self.renderer),
                "peak_memory_bytes": peak_memory_bytes(self.renderer),
                "cache_keys": {**self.scene.cache_keys, **self.priors.used},
                "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
                "training": training_seconds(self.stages.values()),
                "stages": {name: asdict(record) for name, record in self.stages.items()},
            }
        )
