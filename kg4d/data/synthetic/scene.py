"""Synthetic scenes: a procedural character is rendered, with exact keypoints and flow."""

import itertools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.batches.batch import step_generator
from kg4d.data.images import quantize
from kg4d.data.records import Flow, Keypoints, PosedImages, Scene
from kg4d.data.synthetic.body import build_body, depth_inside, pose_at, pose_body
from kg4d.data.synthetic.characters import CHARACTERS, Character
from kg4d.errors import InputError
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit
from kg4d.geometry.sampling import pixel_centers
from kg4d.keypoints.visibility import depth_visible
from kg4d.render.base import Renderer

COUNT = 4000
FRAMES = 16
RADIUS, FOV_Y = 2.0, 49.1
TEST_AZIMUTHS = (-75.0, 15.0, 105.0, 195.0)
RING_VIEWS = 16
_SLACK = 0.06  # how far behind the rendered surface a keypoint may lie and still count as visible, world units
_SURFACE_DEPTH = 0.04  # how far off the rendered depth a surface point may be and still count as visible, world units


@torch.no_grad()
def make_scene(
    character: str, renderer: Renderer, size: int = 128, frames: int = FRAMES, seed: int = 0, cycle: int | None = None
) -> Scene:
    """Render a character that moves in a loop, in the same layout as the scenes on disk.

    The reference video is at azimuth 0, the ring has 16 views of frame 0, and there are four test videos around the
    character. Frame t is at phase t / cycle, so the frame after a whole cycle is the first again. Images hold 8-bit
    values and flow float16 values, as files would.

    Args:
        character: A name in `kg4d.data.synthetic.characters.CHARACTERS`.
        renderer: Renders the images; another renderer changes the scene by rounding only.
        size: Side of the images, px.
        frames: Number of frames T, at least 2.
        seed: Seed of the noise on the colours.
        cycle: Frames of one loop of the motion; all of them when None.

    Raises:
        InputError: There is no such character, or there are fewer than two frames.
    """
    if character not in CHARACTERS:
        remedy = f"choose {' or '.join(sorted(CHARACTERS))}, or synthetic:room"
        raise InputError(f"synthetic:{character}", "no such character", remedy)
    if frames < 2:
        raise InputError(f"synthetic:{character}", f"cannot move in {frames} frames", "make at least two")
    figure = CHARACTERS[character]()
    body = build_body(figure, COUNT, step_generator(seed, character, 0))
    phases = [frame / (cycle or frames) % 1.0 for frame in range(frames)]
    poses = [pose_at(figure, phase) for phase in phases]
    bodies = [
        replace(pose_body(body, pose), opacities=body.opacities(phase))
        for pose, phase in zip(poses, phases, strict=True)
    ]
    states = [state.to(renderer.device) for state in bodies]
    names = [joint.name for joint in figure.joints]
    chosen = [names.index(name) for name in figure.keypoints]
    rest = torch.tensor([joint.rest for joint in figure.joints])
    truth = torch.stack([p.moved(rest)[chosen] for p in poses])
    slack = (_SLACK + 1.6 * depth_inside(figure, rest[chosen])).tolist()

    views = _observe(renderer, _orbit([0.0, *TEST_AZIMUTHS], size), states, truth, slack)
    around = [360.0 * view / RING_VIEWS for view in range(RING_VIEWS)]
    ring = _observe(renderer, _orbit(around, size), states[:1], truth[:1], slack)
    return Scene(
        name=character,
        reference=views.posed_images(range(1), frames),
        ring=ring.posed_images(range(RING_VIEWS), frames),
        keypoints=_keypoints(figure, truth, views, ring),
        flow=_flow(renderer, views, states),
        test=views.posed_images(range(1, 1 + len(TEST_AZIMUTHS)), frames),
    )


def _orbit(azimuths: list[float], size: int) -> Cameras:
    return orbit(azimuths, [0.0] * len(azimuths), RADIUS, FOV_Y, size, size)


@dataclass(frozen=True)
class _Views:
    """T frames rendered from V cameras.

    Attributes:
        cameras: V cameras.
        images: Straight RGBA, rounded to 8-bit values.
        depths: Expected depth, world units.
        alphas: Opacity in [0, 1], not rounded.
        seen: Which of the J keypoints are visible.
    """

    cameras: Cameras
    images: Float[Tensor, "V T H W 4"]
    depths: Float[Tensor, "V T H W 1"]
    alphas: Float[Tensor, "V T H W 1"]
    seen: Bool[Tensor, "V T J"]

    def posed_images(self, views: range, frames: int) -> PosedImages:
        """The images of the chosen views, one view after the other; the time of frame t is t / (frames - 1)."""
        chosen = torch.tensor(views)
        count = self.images.shape[1]
        index = torch.arange(count).repeat(len(chosen))
        return PosedImages(
            cameras=self.cameras[chosen.repeat_interleave(count)],
            images=self.images[chosen].flatten(0, 1),
            times=index / (frames - 1),
            frames=index,
            views=chosen.repeat_interleave(count),
        )


def _observe(
    renderer: Renderer,
    cameras: Cameras,
    states: list[GaussianState],
    points: Float[Tensor, "T J 3"],
    slack: list[float],
) -> _Views:
    """Render all frames from all cameras, and test which keypoints are visible.

    Keypoints lie inside the body, so keypoint j may be up to `slack[j]` world units behind the rendered surface.
    """
    on_device = cameras.to(renderer.device)
    outputs = [renderer(state, on_device, depth=True) for state in states]
    alphas = [output.alpha.cpu() for output in outputs]
    depths = [output.depth.cpu() for output in outputs if output.depth is not None]
    colors = [torch.where(a > 0, o.image.cpu() / a.clamp_min(1e-6), 0) for o, a in zip(outputs, alphas, strict=True)]
    images = [quantize(torch.cat(pair, dim=-1)).float() / 255 for pair in zip(colors, alphas, strict=True)]
    seen = [
        [depth_visible(point, cameras, depth, alpha, tolerance=t) for point, t in zip(positions, slack, strict=True)]
        for positions, depth, alpha in zip(points, depths, alphas, strict=True)
    ]
    rows = [torch.stack(row, dim=-1) for row in seen]
    return _Views(cameras, *(torch.stack(parts, dim=1) for parts in (images, depths, alphas, rows)))


def _keypoints(figure: Character, truth: Float[Tensor, "T J 3"], views: _Views, ring: _Views) -> Keypoints:
    uv = views.cameras.project(truth).pixels
    parents = [-1 if parent is None else figure.keypoints.index(parent) for parent in figure.keypoint_parents]
    return Keypoints(
        names=figure.keypoints,
        parents=tuple(parents),
        uv=uv[0],
        weights=views.seen[0].float(),
        ring_uv=ring.cameras.project(truth[0]).pixels,
        ring_weights=ring.seen[:, 0].float(),
        truth=truth,
        test_uv=uv[1:],
        test_visible=views.seen[1:],
    )


def _flow(renderer: Renderer, views: _Views, states: list[GaussianState]) -> Flow:
    """Flow from rendering each Gaussian's displacement as channels, with the depth it will have in the next frame.

    A pixel has weight 1 where that depth agrees with the depth rendered in the next frame: the point stays visible.
    """
    camera = views.cameras[0].to(renderer.device)
    flows, weights = [], []
    for frame, (state, next_state) in enumerate(itertools.pairwise(states)):
        now, later = camera.project(state.means), camera.project(next_state.means)
        channels = torch.cat([later.pixels - now.pixels, later.depths[..., None]], dim=-1)[0]
        output = renderer(state, camera, features=channels)
        alpha = output.alpha[0].cpu()
        blended = torch.where(alpha > 0, output.image[0].cpu() / alpha.clamp_min(1e-6), 0)
        flow = blended[..., :2].half().float()
        covered = alpha[..., 0] > 0.5
        seen = _seen_next(flow, blended[..., 2], views.depths[0, frame + 1, ..., 0], views.alphas[0, frame + 1, ..., 0])
        flows.append(flow * covered[..., None])
        weights.append((covered & seen).float())
    return Flow(torch.stack(flows), torch.stack(weights))


def _seen_next(
    flow: Float[Tensor, "H W 2"],
    depth: Float[Tensor, "H W"],
    next_depth: Float[Tensor, "H W"],
    next_alpha: Float[Tensor, "H W"],
) -> Bool[Tensor, "H W"]:
    """Whether the points that the flow leads to lie inside the next image, at the depth of the surface there."""
    height, width = depth.shape
    target = pixel_centers(height, width) + flow
    inside = ((target >= 0) & (target < torch.tensor([width, height]))).all(-1)
    column, row = torch.where(inside[..., None], target, 0.0).long().unbind(-1)
    surface, covered = next_depth[row, column], next_alpha[row, column] > 0.5
    return inside & covered & ((depth - surface).abs() < _SURFACE_DEPTH)
