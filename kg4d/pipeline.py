"""The method from end to end: scene, static stage, dynamic stage, refine stage, metrics, exports, record."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from kg4d.config.schema import ExperimentConfig
from kg4d.data.batches.static import static_references
from kg4d.data.records import PosedImages
from kg4d.deform.identity import Identity
from kg4d.formats.base import ExportSource
from kg4d.lift.handles import refitted_keypoints
from kg4d.lift.record import Lift
from kg4d.metrics.suite import Evaluation, write_metrics_json
from kg4d.render.seen import blending_weights
from kg4d.representation.base import Representation
from kg4d.representation.canonical import CanonicalGaussians
from kg4d.representation.settings import RepresentationKind
from kg4d.representation.spacetime import SpacetimeGaussians
from kg4d.runs.animated import follow
from kg4d.runs.build import (
    RunInputs,
    build_run,
    build_run_representation,
    carrying,
    check_neighbours,
    place_run_representation,
    show_video,
    windows_of,
)
from kg4d.runs.costs import Costs
from kg4d.runs.environment import environment, git_commit, peak_memory_bytes, training_seconds
from kg4d.runs.fitted_model import FittedModel
from kg4d.runs.folder import RunFolder, run_hash, variant_of
from kg4d.runs.launch import Crew, crew_of, joined, launch, leave
from kg4d.runs.measure import measure
from kg4d.runs.mirror import Mirror, mirrored
from kg4d.runs.outputs import export, title_of, write_film, write_preview
from kg4d.runs.soundness import check_fitted
from kg4d.runs.validation import Reports, Validation, held_out_frames
from kg4d.runs.watching import Rates, watch_result, watch_stage
from kg4d.stages.base import Stage
from kg4d.stages.callbacks import Previews
from kg4d.stages.checkpoints import on_device
from kg4d.stages.dynamic import DynamicStage, MotionLosses
from kg4d.stages.dynamic_start import CARRY, MotionProblem, lift_video
from kg4d.stages.refine import RefineStage
from kg4d.stages.runner import StageData, has_begun, run_stage
from kg4d.stages.static import StaticStage
from kg4d.tracking.stage_logger import StageLogger
from kg4d.tracking.tracker import Tracker
from kg4d.utils.logs import log_to_file
from kg4d.utils.ranks import Ranks

_log = logging.getLogger(__name__)


def fit(
    config: ExperimentConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    label: str = "",
    validation: Validation | None = None,
    film: Path | None = None,
) -> Path:
    """Fit one scene under one configuration; returns the run folder.

    Args:
        config: A single run: its `seed`, and at most one entry in `variants`, which names it.
        resume: Go on with the run in that folder: finished stages are loaded, the one cut short goes on from its last
            checkpoint, and a run that is done stays as it is.
        overwrite: Replace a finished run in that folder.
        label: What this fit is among others; its log begins with it.
        validation: Who is told how it does on held-out frames, and may end it; for a fit by one process.
        film: File that gets what a live page shows, whenever there is a preview; None for none.

    Raises:
        GivenUpError: Whoever is told has ended it.
        InputError: The configuration or the scene is wrong, another process fits in the folder, a finished run lies
            there, or a checkpoint is damaged or belongs to another run.
        KeyboardInterrupt: A signal came; a checkpoint was written.
    """
    crew, folder = crew_of(config), RunFolder.of(config)
    work = _Work(config, crew, resume, overwrite, label, validation, film)
    if crew.count > 1 and not crew.started:
        launch(crew, work, folder.log)
    else:
        with joined(crew) as (ranks, local_rank):
            work(ranks, local_rank)
    return folder.path


@dataclass(frozen=True)
class _Work:
    """A fit, as each of its processes does it; mostly there is one."""

    config: ExperimentConfig
    crew: Crew
    resume: bool
    overwrite: bool
    label: str
    validation: Validation | None
    film: Path | None

    def __call__(self, ranks: Ranks, local_rank: int) -> None:
        """Do the part of one of them; the first one has the run folder, the log and W&B, measures and exports."""
        config, folder = self.config, RunFolder.of(self.config)
        with (
            folder.alone() if ranks.first else nullcontext(),
            mirrored(config, self.overwrite) if ranks.first else nullcontext() as mirror,
        ):
            resume, done = ranks.told(self._begun(folder) if ranks.first else (False, False))
            if done:
                return
            with log_to_file(folder.log) if ranks.first else nullcontext():
                if self.label and ranks.first:
                    _log.info("%s", self.label)
                costs = Costs()
                lightning.seed_everything(config.seed, verbose=False)
                known = ranks.told(folder.read_normalisation() if resume and ranks.first else None)
                device = self.crew.device(local_rank, config.renderer.device)
                with costs.part("setup"):  # before an earlier run here is cleared away: it may be wrong
                    inputs = ranks.in_turn(lambda: build_run(config, known, device))
                if ranks.first:
                    if not resume:
                        folder.begin(config)
                    folder.write_normalisation(inputs.normalisation)
                ranks.wait()
                with _tracker(config, folder) if ranks.first else Tracker.silent(folder.path) as tracker:
                    _fit(inputs, Desk(folder, tracker, costs, ranks, self.validation, mirror, self.film))

    def _begun(self, folder: RunFolder) -> tuple[bool, bool]:
        """Whether a run there is gone on with, and whether it is done."""
        resume = self.resume and folder.holds_run_of(self.config)
        done = resume and folder.is_done(self.config)
        if done:
            _log.info("%s: already done", folder.path)
        elif not resume and not self.overwrite:
            folder.check_free(self.config)
        return resume, done


def _tracker(config: ExperimentConfig, folder: RunFolder) -> Tracker:
    """Of a run, which W&B knows by its variant, the commit and the protocol, too."""
    about = {"variant": variant_of(config), "git_commit": git_commit(), "protocol": config.evaluation.protocol}
    return Tracker.of(config, folder.path, about)


@dataclass(frozen=True)
class Desk:
    """Where a fit writes to while it goes on.

    Attributes:
        folder: Of the run.
        tracker: Logs and W&B.
        costs: Seconds and stage records.
        ranks: The processes that fit together; only the first one writes.
        validation: Who is told how the motion does on held-out frames.
        mirror: Copies the folder up where it is stored elsewhere; None where it is not.
        film: File of what a live page shows; None where there is none.
    """

    folder: RunFolder
    tracker: Tracker
    costs: Costs
    ranks: Ranks
    validation: Validation | None = None
    mirror: Mirror | None = None
    film: Path | None = None


def _fit(run: RunInputs, desk: Desk) -> None:
    """KG4D figure 2, from left to right."""
    fit_static(run, desk)
    representation = build_run_representation(run.config, run.gaussians, windows_of(run.config, run.scene))
    show_video(run, representation)
    place_run_representation(run, representation)
    fit_motion(run, desk, representation)
    if run.motion is not None:
        follow(representation, run.motion, run.skeleton.parents, run.normalisation, run.whole_scene, run.config.motion)
    fit_colours(run, desk, representation)
    leave()
    if not desk.ranks.first:
        return
    fitted = FittedModel(representation, run.renderer, run.background, run.normalisation)
    with desk.costs.part("evaluation"):
        evaluation = evaluate(run, desk, fitted)
    with desk.costs.part("export"):
        write_files(run, desk, fitted, evaluation)
    write_record(run, desk)
    write_metrics_json(desk.folder.metrics, evaluation, run.protocol)


def fit_static(run: RunInputs, desk: Desk) -> None:
    """Fit the Gaussians to the views of frame 0."""
    config, name = run.config, StaticStage.name
    still = CanonicalGaussians(run.gaussians, Identity(), config.kfc.temperature)
    stage = StaticStage(
        run.gaussians,
        run.renderer,
        config.static,
        config.kfc,
        run.background,
        config.seed,
        run.guidance.get(name),
        config.optimizer,
        run.far_side,
        config.gaussians.expected,
        config.gaussians.sh_warmup,
        config.depth,
    )
    shown = static_references(run.scene).images
    run_one(run, desk, stage, run.static_data, still, shown)
    if stage.far_side is not None:
        stage.far_side.complete(run.gaussians)
    check_neighbours(config, len(run.gaussians))  # density control may have taken some away
    if config.deformation.anchor_first and len(set(shown.frames.tolist())) > 1:
        _log.warning("the static stage saw several moments: consider deformation.anchor_first=false for this scene")


def fit_motion(run: RunInputs, desk: Desk, representation: Representation) -> None:
    """Lift the keypoints of the video, start the motion there, and fit it to the video."""
    config, video, lift = run.config, run.scene.reference, None
    begun = has_begun(DynamicStage.name, desk.folder.checkpoints, run_hash(config))  # then its checkpoint has the lift
    if not begun and run.motion is None:
        if isinstance(representation, SpacetimeGaussians) and run.carry_data is not None:
            lift = _carry(run, desk, representation)
        else:
            lift = _lift(run, desk, _problem(run, config), representation)
    stage = _problem(run, config).stage(representation, lift, run.guidance.get(DynamicStage.name))
    reports = []
    if desk.validation is not None:
        fitted = FittedModel(representation, run.renderer, run.background, run.normalisation)
        reports.append(Reports(desk.validation, fitted, held_out_frames(run), stage.steps, desk.ranks))
    run_one(run, desk, stage, run.dynamic_data, representation, video, reports)
    if stage.lift is not None:
        found, cameras = stage.lift, video.cameras.to(run.renderer.device)
        representation.correct_keypoints(lambda positions: refitted_keypoints(positions, found, cameras))


def _carry(run: RunInputs, desk: Desk, representation: SpacetimeGaussians) -> Lift | None:
    """Fit a deformation first, and cut the Gaussians that it carries into pieces along their ways."""
    assert run.carry_data is not None
    config = carrying(run.config)
    carrier, problem = build_run_representation(config, run.gaussians), replace(_problem(run, config), name=CARRY)
    begun = has_begun(CARRY, desk.folder.checkpoints, run_hash(run.config))
    stage = problem.stage(carrier, None if begun else _lift(run, desk, problem, carrier))
    run_one(run, desk, stage, run.carry_data, carrier, run.scene.reference)
    representation.carry(carrier)
    return stage.lift


def _problem(run: RunInputs, config: ExperimentConfig) -> MotionProblem:
    """What a motion is fitted to, and how."""
    joint, rigidity = config.dynamic.gaussian_rates, config.rigidity
    if config.representation.kind is RepresentationKind.SPACETIME:  # it has no neighbourhoods that last
        rigidity = replace(rigidity, weight=0.0)
    losses = MotionLosses(
        config.kfc, config.wgf, rigidity, config.bones, config.lift.weight, config.coverage, config.depth
    )
    return MotionProblem(
        run.scene,
        run.skeleton,
        run.renderer,
        run.background,
        config.dynamic,
        losses,
        config.lift,
        config.optimizer,
        config.static.learning_rates.scaled(joint) if joint > 0 else None,
        config.seed,
    )


def _lift(run: RunInputs, desk: Desk, problem: MotionProblem, representation: Representation) -> Lift | None:
    """The keypoints of the video in 3D, the same in all processes."""
    lift, data = None, run.dynamic_data.dataset
    with desk.costs.part("lift"):
        data.move(run.renderer.device)  # where its trials take place
        if desk.ranks.first:
            lift = lift_video(problem, representation, data.batch)
        return _same_lift(desk.ranks, lift, run.renderer.device)


def _same_lift(ranks: Ranks, lift: Lift | None, device: torch.device) -> Lift | None:
    """The lift that the first process has found, in all of them."""
    if ranks.count == 1:
        return lift
    state = ranks.told(None if lift is None else on_device(lift.state(), "cpu"))
    return lift if ranks.first or state is None else Lift.from_state(state).to(device)


def fit_colours(run: RunInputs, desk: Desk, representation: Representation) -> None:
    """Fine-tune the colours on the video."""
    config = run.config
    seen = _seen(run, representation) if run.scene.ring is None and config.refine.steps > 0 else None
    stage = RefineStage(
        representation, run.renderer, config.refine, run.background, config.seed, config.optimizer, seen
    )
    run_one(run, desk, stage, run.refine_data, representation, run.scene.reference)


@torch.no_grad()
def _seen(run: RunInputs, representation: Representation) -> Float[Tensor, " N"]:
    """What of each Gaussian the reference video shows."""
    video, device = run.scene.reference, run.renderer.device
    states = (representation.states(time[None].to(device)) for time in video.times)
    cameras = video.cameras.to(device)
    shown = [blending_weights(run.renderer, state, cameras[index]) for index, state in enumerate(states)]
    return torch.stack(shown).sum(0)


def run_one(
    run: RunInputs,
    desk: Desk,
    stage: Stage[Any],
    data: StageData,
    representation: Representation,
    shown: PosedImages,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Run a stage, with previews of the representation against the images in `shown`, which are normalised."""

    def draw(step: int) -> None:
        fitted = FittedModel(representation, run.renderer, run.background)
        path = desk.folder.previews / f"{stage.name}_{step:05d}.png"
        desk.tracker.image(f"preview/{stage.name}", write_preview(path, fitted, shown), step)
        if desk.tracker.is_shown:
            inside = FittedModel(representation, run.renderer, run.background, run.normalisation)
            watch_stage(run, desk.tracker, stage, step, inside, desk.folder.previews)
        if desk.film is not None:
            _show_live(desk.film, run, stage, step, representation)

    _log.info("%s: %d steps", stage.name, stage.steps)
    desk.costs.stages[stage.name] = run_stage(
        stage,
        data,
        folder=desk.folder.checkpoints,
        config=run.config.trainer,
        run=run_hash(run.config),
        logger=StageLogger(desk.tracker, stage.name) if desk.ranks.first else None,
        callbacks=[*(_watchers(run, desk, draw) if desk.ranks.first else []), *callbacks],
        ranks=desk.ranks,
        saved=(lambda: None) if desk.mirror is None else desk.mirror.put_if_possible,
    )
    stage.to(run.renderer.device)  # its Trainer leaves it on the CPU
    if stage.steps > 0:
        check_fitted(stage.name, FittedModel(representation, run.renderer, run.background), shown)


def _watchers(run: RunInputs, desk: Desk, draw: Callable[[int], None]) -> list[Callback]:
    """What the first process does beside its steps for those who look on."""
    rates = [Rates(desk.tracker)] if desk.tracker.is_shown else []
    return [*rates, Previews(draw, run.config.trainer.preview_every)]


def _show_live(film: Path, run: RunInputs, stage: Stage[Any], step: int, representation: Representation) -> None:
    """Write what a live page shows of a stage: a model that does not move yet has one frame."""
    scene = run.whole_scene
    fitted = FittedModel(representation, run.renderer, run.background, run.normalisation)
    source = ExportSource(fitted, scene, run.config.export.fps, name=title_of(run.config))
    times = scene.reference.times[:1] if isinstance(stage, StaticStage) else scene.reference.times
    write_film(film, source, times, f"{stage.name} stage, step {step} of {stage.steps}")


def evaluate(run: RunInputs, desk: Desk, fitted: FittedModel) -> Evaluation:
    """Measure the fitted model, and say what could not be measured."""
    evaluation = measure(run.config, fitted, run.whole_scene)
    for reason in dict.fromkeys(evaluation.skipped.values()):
        keys = [key for key, why in evaluation.skipped.items() if why == reason]
        _log.info("not measured: %s (%s)", ", ".join(keys), reason)
    if desk.tracker.is_shown:
        watch_result(run, desk.tracker, fitted, evaluation)
    return evaluation


def write_files(run: RunInputs, desk: Desk, fitted: FittedModel, evaluation: Evaluation) -> None:
    """Export the fitted model, and show its videos."""
    config = run.config.export
    source = ExportSource(fitted, run.whole_scene, config.fps, config.orbit, title_of(run.config), evaluation.metrics)
    if desk.film is not None:
        write_film(desk.film, source, source.scene.reference.times, "fitted")
    for made in export(config.formats, desk.folder.export, source).values():
        for path in made.videos:
            desk.tracker.video(f"video/{path.stem}", path)


def write_record(run: RunInputs, desk: Desk) -> None:
    """Write down what the run was made with, and what it cost."""
    config, costs = run.config, desk.costs
    desk.folder.write_record(
        {
            "name": config.name,
            "variant": variant_of(config),
            "seed": config.seed,
            "scene": config.scene,
            "gaussians": len(run.gaussians),
            **environment(run.renderer),
            "peak_memory_bytes": peak_memory_bytes(run.renderer),
            "cache_keys": {**run.scene.cache_keys, **run.priors.used},
            "seconds": costs.rounded(),
            "training": training_seconds(costs.stages.values()),
            "stages": {name: asdict(record) for name, record in costs.stages.items()},
        }
    )
