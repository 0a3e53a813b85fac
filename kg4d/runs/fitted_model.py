"""A fitted 4D model: Gaussians, their motion, and what one asks of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kg4d.data.normalisation import Normalisation
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.base import Renderer
from kg4d.representation.base import Representation

_AT_ONCE = 16  # times that are evaluated together


@dataclass(frozen=True)
class FittedModel:
    """Gaussians that move. They live where their renderer draws; answers come back on the device of the question.

    Questions and answers are in the axes, units and times of the scene's world, whatever those of the fit.

    Attributes:
        representation: The Gaussians and their motion.
        renderer: Draws them.
        background: Colour behind them.
        normalisation: From that world to the fit's.
    """

    representation: Representation
    renderer: Renderer
    background: Float[Tensor, " 3"]
    normalisation: Normalisation = field(default_factory=Normalisation.none)

    @torch.no_grad()
    def states(self, times: Float[Tensor, " B"]) -> list[GaussianState]:
        """The whole Gaussians that are there at `times`, each in [0, 1]; their number may change from time to time."""
        return [self.normalisation.world_state(state.present()) for state in self._states(times)]

    def _states(self, times: Float[Tensor, " B"]) -> Iterator[GaussianState]:
        """In the axes and units of the fit; a few at a time, since those of a long clip are not all there at once."""
        for part in self._inside(times):
            yield from (state.detach() for state in self.representation.states(part).states())

    def _inside(self, times: Float[Tensor, " B"]) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = torch.split(self.normalisation.times(times.to(self.renderer.device)), _AT_ONCE)
        return parts

    @torch.no_grad()
    def pieces(self) -> Pieces | None:
        """The Gaussians in space and time, in the axes, units and times of the world; None where they are no such."""
        own, inside = self.representation.pieces(), self.normalisation
        if own is None:
            return None
        still = replace(inside, center=torch.zeros_like(inside.center))
        return replace(
            own,
            state=inside.world_state(own.state),
            times=own.times * inside.duration,
            durations=own.durations * inside.duration,
            velocities=still.world_points(own.velocities) / inside.duration,
        )

    @torch.no_grad()
    def keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """World positions of the model's keypoints."""
        found = torch.cat([self.representation.keypoints(part) for part in self._inside(times)])
        return self.normalisation.world_points(found).to(times.device)

    @torch.no_grad()
    def drawn_keypoints(self, times: Float[Tensor, " B"]) -> Float[Tensor, "B J 3"]:
        """World positions of the keypoints of the Gaussians as they are drawn."""
        found = torch.cat([self.representation.drawn_keypoints(part) for part in self._inside(times)])
        return self.normalisation.world_points(found).to(times.device)

    @torch.no_grad()
    def render(self, cameras: Cameras, times: Float[Tensor, " M"], *, frozen: bool = False) -> Float[Tensor, "M H W 3"]:
        """Image m is camera m at time m; `frozen` leaves the Gaussians as the static stage has left them."""
        return self.render_rgba(cameras, times, frozen=frozen)[..., :3]

    @torch.no_grad()
    def render_rgba(
        self, cameras: Cameras, times: Float[Tensor, " M"], *, frozen: bool = False
    ) -> Float[Tensor, "M H W 4"]:
        """The images of `render`, on the background, and how far the Gaussians cover each pixel.

        Images of one time are drawn together, so that the motion is evaluated once a time.
        """
        images = torch.empty(len(cameras), cameras.height, cameras.width, 4, device=times.device)
        cameras = self.normalisation.cameras(cameras)
        for time in sorted(set(times.tolist())):
            chosen = torch.nonzero(times == time)[:, 0]
            state = self.representation.rest().detach() if frozen else next(self._states(torch.tensor([time])))
            here = cameras[chosen].to(self.renderer.device)
            output = self.renderer(state, here, background=self.background)
            images[chosen] = torch.cat([output.image, output.alpha], dim=-1).to(images.device)
        return images

    @torch.no_grad()
    def depth(self, cameras: Cameras, times: Float[Tensor, " M"]) -> Float[Tensor, "M H W"]:
        """Expected depth along the optical axis of camera m at time m, world units; 0 where nothing is drawn."""
        inside, maps = self.normalisation.cameras(cameras), []
        for index, state in enumerate(self._states(times)):
            output = self.renderer(state, inside[index].to(self.renderer.device), depth=True)
            assert output.depth is not None  # it was asked for
            maps.append(output.depth[0, ..., 0].to(times.device) * self.normalisation.unit)
        return torch.stack(maps)

    @torch.no_grad()
    def flow(self, cameras: Cameras, times: Float[Tensor, " 2"]) -> Float[Tensor, "H W 2"]:
        """Optical flow of the first of two images: displacement in px of what it shows, 0 where it shows nothing.

        Args:
            cameras: The two cameras; the same one twice where it stands still.
            times: When each of them looks.
        """
        now, later = self._states(times)
        cameras = self.normalisation.cameras(cameras)
        here, there = (cameras[index].to(self.renderer.device) for index in range(2))
        motion = (there.project(later.means).pixels - here.project(now.means).pixels)[0]
        output = self.renderer(now, here, features=motion)
        return (output.image / output.alpha.clamp_min(1e-6))[0].to(cameras.Ks.device)
