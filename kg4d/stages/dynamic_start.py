"""Where the dynamic stage starts: at the keypoints of the video in 3D; where lifts differ, the images decide.

Pixels of keypoints, bones and the surface may leave open on which side a limb is. Its texture, its outline and what it
hides do not, but only a fit that has come near shows that: before the first step the wrong lift may look as good. So a
short fit of the motion is made from each of them, on a copy of the Gaussians. Such a fit also moves the keypoints to
where the images are, which noisy detections are not. Lifted again from there they are a further candidate, if they then
move like a body; it has to do better than the positions that the fit itself has found.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.batches.batch import DynamicBatch
from kg4d.data.records import Scene
from kg4d.gaussians.settings import LearningRates
from kg4d.geometry.cameras import project_each
from kg4d.keypoints.motion import KeypointMotion
from kg4d.keypoints.sides import other_sides
from kg4d.lift.handles import rest_keypoints
from kg4d.lift.record import Lift
from kg4d.lift.seeding import Skeleton
from kg4d.lift.settings import LiftConfig
from kg4d.lift.solve import lift_keypoints
from kg4d.lift.surface import SurfaceTracks, follow_surface
from kg4d.optim.settings import OptimizerConfig
from kg4d.render.base import Renderer
from kg4d.representation.base import Representation
from kg4d.stages.dynamic import DynamicStage, MotionLosses
from kg4d.stages.guidance import Guidance
from kg4d.stages.settings import DynamicConfig

_log = logging.getLogger(__name__)

CARRY = "carry"  # the stage in which a deformation moves Gaussians before they are cut into pieces along time

# The images must be missed by less by these shares (evidence/lift_log.md: right and wrong ones)
_BETTER = 0.05  # from another hypothesis
_CLOSER = 0.02  # from keypoints that were lifted again
_RELIABLE = 0.9  # detections that are less reliable are lifted again, and must be as reliable by then
_NEAR = 2  # frames; the images are taken to show a keypoint so long before and after it was detected


@dataclass(frozen=True)
class MotionProblem:
    """What a motion is fitted to, and how: the same for the dynamic stage and for the trials before it.

    Attributes:
        scene: With the keypoints that the model can carry.
        skeleton: Between them.
        renderer: Draws the Gaussians.
        background: Colour behind them.
        config: The dynamic stage.
        losses: Its losses.
        lift: How keypoints are lifted to 3D.
        optimizer: Which optimiser takes the steps.
        gaussian_rates: Learning rates of the Gaussians of frame 0 in the stage; None freezes them, as trials do.
        seed: Of all that is drawn at random.
        name: Of the stage.
    """

    scene: Scene
    skeleton: Skeleton
    renderer: Renderer
    background: Float[Tensor, " 3"]
    config: DynamicConfig
    losses: MotionLosses
    lift: LiftConfig
    optimizer: OptimizerConfig
    gaussian_rates: LearningRates | None
    seed: int
    name: str = DynamicStage.name

    def stage(
        self,
        representation: Representation,
        lift: Lift | None,
        guidance: Guidance | None = None,
        steps: int | None = None,
    ) -> DynamicStage:
        """The dynamic stage of a representation, whose motion starts at a lift.

        Args:
            representation: As the static stage has left it; it is started and then fitted.
            lift: Where the motion starts; at rest when None.
            guidance: Judges views that the video does not show; None where nothing does.
            steps: Length of the stage; that of the configuration when None.
        """
        rest = self.rest_points(representation)
        times = self.scene.reference.times.to(rest)
        if len(rest):
            positions = rest.expand(len(times), -1, -1) if lift is None else lift.tracks
            known = self.skeleton.known.to(rest.device)
            with torch.no_grad():
                representation.start(KeypointMotion(times, rest, positions, self.skeleton.parents, known))
        return DynamicStage(
            representation,
            self.renderer,
            self.config if steps is None else replace(self.config, steps=steps),
            self.losses,
            self.skeleton.parents,
            self.background,
            self.seed,
            guidance,
            lift,
            self.optimizer,
            self.gaussian_rates if steps is None else None,
            float(times[-1] - times[0]) / max(1, len(times) - 1),
            self._windows(times) if steps is None else [(0.0, 1.0)],
            self.name,
        )

    def _windows(self, times: Float[Tensor, " T"]) -> list[tuple[float, float]]:
        """First and last times of the windows of the clip."""
        windows = self.config.data.windows.of(len(times))
        return [(float(times[window.start]), float(times[window.stop - 1])) for window in windows]

    def rest_points(self, representation: Representation) -> Float[Tensor, "J 3"]:
        """World positions of the keypoints in frame 0."""
        return rest_keypoints(representation.rest(), self.skeleton, self.losses.kfc.temperature)


def lift_video(
    problem: MotionProblem, representation: Representation, batch: Callable[[int], DynamicBatch]
) -> Lift | None:
    """The keypoints of the reference video in 3D, where that is asked for; where lifts differ, the images decide.

    Args:
        problem: The video and the settings.
        representation: As the static stage has left it; it is not changed.
        batch: What the dynamic stage sees at a step.
    """
    config, keypoints, video = problem.lift, problem.scene.keypoints, problem.scene.reference
    if keypoints is None or config.steps == 0:
        return None
    rest = problem.rest_points(representation)
    surface = _followed_surface(problem, representation)
    leans = keypoints.leans
    if leans is not None:  # bones that were cut are none
        leans = leans * (problem.skeleton.parents.cpu() == torch.tensor(keypoints.parents))

    def lifted(uv: Float[Tensor, "T J 2"], weights: Float[Tensor, "T J"]) -> Lift:
        return lift_keypoints(
            config,
            rest=rest.cpu(),
            parents=problem.skeleton.parents,
            pixels=uv,
            weights=weights,
            cameras=video.cameras,
            times=video.times,
            generator=torch.Generator().manual_seed(problem.seed),
            surface=surface,
            counterparts=other_sides(keypoints.names),
            leans=leans,
        ).to(rest.device)

    lift = lifted(keypoints.uv, keypoints.weights)
    steps = min(config.trial_steps, problem.config.steps)
    if steps == 0:
        return lift

    def trial_of(start: Lift) -> Trial:
        return tried(problem.stage(copy.deepcopy(representation), start, steps=steps), batch, video.times.to(rest))

    def lifted_from(positions: Float[Tensor, "T J 3"]) -> Lift:
        return lifted(project_each(positions.cpu(), video.cameras), seen_about(keypoints.weights))

    return preferred(lift, trial_of, lifted_from)


@torch.no_grad()
def _followed_surface(problem: MotionProblem, representation: Representation) -> SurfaceTracks | None:
    """Points on the Gaussians of frame 0, followed along the video's flow; None without one."""
    scene, count = problem.scene, problem.lift.surface
    if scene.flow is None or count == 0:
        return None
    camera = scene.reference.cameras[0]
    here = camera.to(problem.renderer.device)
    drawn = problem.renderer(representation.rest(), here, background=problem.background, depth=True)
    assert drawn.depth is not None
    generator = torch.Generator().manual_seed(problem.seed)
    return follow_surface(drawn.depth[0].cpu(), drawn.alpha[0].cpu(), camera, scene.flow, count, generator)


@dataclass(frozen=True)
class Trial:
    """What a short fit gave.

    Attributes:
        lift: Where it started.
        image_loss: Mean over the last quarter of its steps.
        positions: The keypoints at the end, world units.
    """

    lift: Lift
    image_loss: float
    positions: Float[Tensor, "T J 3"]


def preferred(
    lift: Lift, trial_of: Callable[[Lift], Trial], lifted_from: Callable[[Float[Tensor, "T J 3"]], Lift]
) -> Lift:
    """The lift, or another one from which the images are missed by clearly less.

    Args:
        lift: With its rivals, which are tried; if it is reliable and has none, nothing is.
        trial_of: A short fit from a lift.
        lifted_from: Lifts the keypoints of a video again, by where a trial has put them. What is known of the
            detections, and how far to pull to the tracks, stays as it was.
    """
    if not lift.rivals and lift.overall_confidence >= _RELIABLE:
        return lift
    best = _least([trial_of(start) for start in (lift, *lift.rivals)], _BETTER)
    if best.lift.overall_confidence >= _RELIABLE:
        return best.lift
    again = lifted_from(best.positions)
    if again.overall_confidence < _RELIABLE:
        return best.lift
    # a lift from there has what the first trial gained; so has a fit that just goes on, which it is compared to
    starts = [best.positions, *(other.tracks for other in (again, *again.rivals))]
    on, *others = [trial_of(replace(best.lift, tracks=tracks)) for tracks in starts]
    closest = _least([on, *others], _CLOSER)
    return best.lift if closest is on else closest.lift


def tried(stage: DynamicStage, batch: Callable[[int], DynamicBatch], times: Float[Tensor, " T"]) -> Trial:
    """Fit a motion for all steps of a stage that has a lift.

    Args:
        stage: One that has not begun, of a representation that nothing else uses.
        batch: What it sees at a step.
        times: Of the tracks.
    """
    assert stage.lift is not None
    stage.begin()
    optimizer = stage.configure_optimizers()
    losses = []
    for step in range(stage.steps):
        objective = stage.take_step(batch(step).to(times.device), optimizer)
        losses.append(objective.terms["photometric"])
    with torch.no_grad():
        positions = stage.representation.keypoints(times)
    return Trial(stage.lift, float(torch.stack(losses[3 * stage.steps // 4 :]).mean()), positions)


def seen_about(weights: Float[Tensor, "T J"]) -> Float[Tensor, "T J"]:
    """1 where a keypoint was detected in that frame or in one near it, else 0.

    >>> seen_about(torch.tensor([[0.5], [0.0], [0.0], [0.0], [0.0]])).flatten()
    tensor([1., 1., 1., 0., 0.])
    """
    detected = (weights > 0).to(weights).T[None]
    return torch.nn.functional.max_pool1d(detected, 2 * _NEAR + 1, stride=1, padding=_NEAR)[0].T


def _least(trials: list[Trial], share: float) -> Trial:
    """The one that misses the images by least, if that is less than the first one's loss by more than `share` of it."""
    best = min(trials, key=lambda trial: trial.image_loss)
    chosen = best if best.image_loss < (1 - share) * trials[0].image_loss else trials[0]
    losses = ", ".join(f"{trial.image_loss:.4f}" for trial in trials)
    _log.info("lift: image losses of %d trials %s; %.4f is kept", len(trials), losses, chosen.image_loss)
    return chosen
