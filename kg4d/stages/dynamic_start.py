"""Where the dynamic stage starts: at the keypoints of the video in 3D."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.records import Scene
from kg4d.gaussians.settings import LearningRates
from kg4d.keypoints.motion import KeypointMotion
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

CARRY = "carry"  # the stage in which a deformation moves Gaussians before they are cut into pieces along time


@dataclass(frozen=True)
class MotionProblem:
    """What a motion is fitted to, and how.

    Attributes:
        scene: With the keypoints that the model can carry.
        skeleton: Between them.
        renderer: Draws the Gaussians.
        background: Colour behind them.
        config: The dynamic stage.
        losses: Its losses.
        lift: How keypoints are lifted to 3D.
        optimizer: Which optimiser takes the steps.
        gaussian_rates: Learning rates of the Gaussians of frame 0 in the stage; None freezes them.
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
    ) -> DynamicStage:
        """The dynamic stage of a representation, whose motion starts at a lift.

        Args:
            representation: As the static stage has left it; it is started and then fitted.
            lift: Where the motion starts; at rest when None.
            guidance: Judges views that the video does not show; None where nothing does.
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
            self.config,
            self.losses,
            self.skeleton.parents,
            self.background,
            self.seed,
            guidance,
            lift,
            self.optimizer,
            self.gaussian_rates,
            float(times[-1] - times[0]) / max(1, len(times) - 1),
            self._windows(times),
            self.name,
        )

    def _windows(self, times: Float[Tensor, " T"]) -> list[tuple[float, float]]:
        """First and last times of the windows of the clip."""
        windows = self.config.data.windows.of(len(times))
        return [(float(times[window.start]), float(times[window.stop - 1])) for window in windows]

    def rest_points(self, representation: Representation) -> Float[Tensor, "J 3"]:
        """World positions of the keypoints in frame 0."""
        return rest_keypoints(representation.rest(), self.skeleton, self.losses.kfc.temperature)


def lift_video(problem: MotionProblem, representation: Representation) -> Lift | None:
    """The keypoints of the reference video in 3D, where that is asked for.

    Args:
        problem: The video and the settings.
        representation: As the static stage has left it; it is not changed.
    """
    config, keypoints, video = problem.lift, problem.scene.keypoints, problem.scene.reference
    if keypoints is None or config.steps == 0:
        return None
    rest = problem.rest_points(representation)
    leans = keypoints.leans
    if leans is not None:  # bones that were cut are none
        leans = leans * (problem.skeleton.parents.cpu() == torch.tensor(keypoints.parents))
    return lift_keypoints(
        config,
        rest=rest.cpu(),
        parents=problem.skeleton.parents,
        pixels=keypoints.uv,
        weights=keypoints.weights,
        cameras=video.cameras,
        times=video.times,
        generator=torch.Generator().manual_seed(problem.seed),
        surface=_followed_surface(problem, representation),
        leans=leans,
    ).to(rest.device)


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
