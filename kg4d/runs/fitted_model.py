"""A fitted 4D model: Gaussians, their motion, and what one asks of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kg4d.deform.base import CarriesKeypoints, DeformedGeometry
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.render.base import Renderer


@dataclass(frozen=True)
class FittedModel:
    """Gaussians that move. They live where their renderer draws; answers come back on the device of the question.

    Attributes:
        canonical: The Gaussians of frame 0, detached.
        deformation: Moves them.
        renderer: Draws them.
        background: Colour behind them.
        keypoint_temperature: Softmax temperature under which their keypoint features were fitted.
    """

    canonical: GaussianState
    deformation: nn.Module
    renderer: Renderer
    background: Float[Tensor, " 3"]
    keypoint_temperature: float

    @torch.no_grad()
    def geometry(self, times: Float[Tensor, " B"]) -> DeformedGeometry:
        """Geometry at `times`, each in [0, 1]."""
        moved: DeformedGeometry = self.deformation(self.canonical, times.to(self.canonical.means))
        return moved

    def states(self, times: Float[Tensor, " B"]) -> list[GaussianState]:
        """The whole Gaussians at `times`."""
        geometry = self.geometry(times)
        return [geometry.at(index, self.canonical) for index in range(len(times))]

    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """World positions of the model's keypoints: the motion's own, or barycentres of their Gaussians."""
        if isinstance(self.deformation, CarriesKeypoints):
            with torch.no_grad():
                return self.deformation.keypoints(times.to(self.canonical.means)).to(times.device)
        share = assignment(self.canonical.keypoint_logits, self.keypoint_temperature)
        return barycentre(share, self.geometry(times).means).to(times.device)

    @torch.no_grad()
    def render(self, cameras: Cameras, times: Float[Tensor, " M"], *, frozen: bool = False) -> Float[Tensor, "M H W 3"]:
        """Image m is camera m at time m; `frozen` leaves the Gaussians at frame 0 throughout.

        Images of one time are drawn together, so that the motion is evaluated once a time.
        """
        images = torch.empty(len(cameras), cameras.height, cameras.width, 3, device=times.device)
        for time in sorted(set(times.tolist())):
            chosen = torch.nonzero(times == time)[:, 0]
            state = self.canonical if frozen else self.states(torch.tensor([time]))[0]
            here = cameras[chosen].to(self.renderer.device)
            images[chosen] = self.renderer(state, here, background=self.background).image.to(images.device)
        return images

    @torch.no_grad()
    def flow(self, camera: Cameras, time: float, next_time: float) -> Float[Tensor, "H W 2"]:
        """Displacement in px of what a single camera sees, from `time` to `next_time`; 0 where nothing is seen."""
        now, later = self.states(torch.tensor([time, next_time]))
        here = camera.to(self.renderer.device)
        motion = (here.project(later.means).pixels - here.project(now.means).pixels)[0]
        output = self.renderer(now, here, features=motion)
        return (output.image / output.alpha.clamp_min(1e-6))[0].to(camera.Ks.device)
