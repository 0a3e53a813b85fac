"""Score distillation inside a stage: random views around the object, rendered and judged together."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.batches.batch import step_generator
from kg4d.geometry.cameras import Cameras, joined
from kg4d.geometry.orbits import look_at
from kg4d.losses.sds import NoisePredictor, Viewpoint, sds_loss, timestep_of
from kg4d.losses.settings import SdsConfig
from kg4d.optim.objective import Objective
from kg4d.render.base import RenderOutput
from kg4d.utils.devices import sent

Draw = Callable[[Cameras, Tensor, Tensor], RenderOutput]
"""Renders B cameras, each at its own of B times, on a background."""


@dataclass(frozen=True)
class Guidance:
    """Judges random views of the object.

    Attributes:
        predictor: The diffusion model.
        config: Of this stage.
        references: Cameras of the frames that the model is told, one a frame.
        times: Of these frames, in [0, 1].
        center: What the cameras look at.
        reference_elevation: Of these cameras, degrees above the horizon.
        seed: Of what is drawn.
    """

    predictor: NoisePredictor
    config: SdsConfig
    references: Cameras
    times: Float[Tensor, " M"]
    center: Float[Tensor, " 3"]
    reference_elevation: float
    seed: int

    def add(self, objective: Objective, step: int, draw: Draw) -> int:
        """Add the mean loss of this step's views, a pure function of the seed, the step and what `draw` renders.

        Returns:
            How many images were drawn.
        """
        config, device = self.config, self.center.device
        weight = config.weight * (1 + (config.final_factor - 1) * objective.progress)
        generator = step_generator(self.seed, "guidance", step)
        viewpoints, timesteps = [], []
        for _ in range(config.views):
            viewpoints.append(self.viewpoint(generator))
            timesteps.append(timestep_of(config, objective.progress, len(self.predictor.alphas), generator))
        frames = torch.tensor([viewpoint.frame for viewpoint in viewpoints])
        images = draw(
            joined([self.camera(viewpoint) for viewpoint in viewpoints]),
            self.times[sent(frames, device)],
            torch.ones(3, device=device),
        ).image
        loss = sds_loss(self.predictor, images, viewpoints, timesteps, generator)
        objective.add("sds", loss / config.views, weight)
        return config.views

    def viewpoint(self, generator: torch.Generator) -> Viewpoint:
        """Draw one, uniformly; from no nearer than 5 degrees to the poles."""
        frame = int(torch.randint(len(self.references), (), generator=generator))
        shares = torch.rand(2, generator=generator).tolist()
        azimuth, elevation = (
            low + share * (high - low)
            for share, (low, high) in zip(shares, (self.config.azimuths, self.config.elevations), strict=True)
        )
        highest, lowest = 85 - self.reference_elevation, -85 - self.reference_elevation
        return Viewpoint(frame, azimuth, min(max(elevation, lowest), highest))

    def camera(self, viewpoint: Viewpoint) -> Cameras:
        """Its camera, with the lens of the reference camera and the image size of the model."""
        size = self.predictor.size
        return camera_around(
            self.references[viewpoint.frame].resized(size, size),
            self.center,
            viewpoint.azimuth,
            viewpoint.elevation,
            self.reference_elevation,
        )


def camera_around(
    reference: Cameras, center: Float[Tensor, " 3"], azimuth: float, elevation: float, reference_elevation: float
) -> Cameras:
    """The camera that the reference becomes when it moves around a point, at its distance, looking at the point.

    What is up follows from the reference camera and its elevation alone, whatever the axes of the world.

    Args:
        reference: One camera; its upward direction and the object's lie in one vertical plane.
        center: The point.
        azimuth: Degrees around the vertical axis, positive to the right of the reference camera.
        elevation: Degrees above it.
        reference_elevation: Of the reference camera, degrees above the horizon.
    """
    right, down, forward = reference.viewmats[0, :3, :3]
    distance, backward = (reference.centers[0] - center).norm(), -forward
    tilt = math.radians(reference_elevation)
    vertical = math.sin(tilt) * backward - math.cos(tilt) * down
    level = math.cos(tilt) * backward + math.sin(tilt) * down
    turn, rise = math.radians(azimuth), math.radians(reference_elevation + elevation)
    direction = math.cos(rise) * (math.cos(turn) * level + math.sin(turn) * right) + math.sin(rise) * vertical
    eye = center + distance * direction
    return Cameras(look_at(eye[None], center, vertical), reference.Ks, reference.width, reference.height)
