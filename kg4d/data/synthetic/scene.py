"""Synthetic scenes: a procedural character is rendered, with exact keypoints and flow."""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.batches.batch import step_generator
from kg4d.data.images import quantize
from kg4d.data.records import Flow, Scene, Truth
from kg4d.data.synthetic.body import build_body, depth_inside, pose_at, pose_body
from kg4d.data.synthetic.characters import CHARACTERS
from kg4d.data.turntable import RING_VIEWS, TEST_AZIMUTHS, Drawn, Views, exact_keypoints, ring_cameras, video_cameras
from kg4d.errors import InputError
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.sampling import pixel_centers
from kg4d.render.base import Renderer

COUNT = 4000
FRAMES = 16
_SLACK = 0.06  # how far behind the rendered surface a keypoint may lie and still count as visible, world units
_THERE = 0.5  # opacity of a Gaussian that is part of the surface
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

    cameras, around = video_cameras(size), ring_cameras(size)
    views = Views.of(cameras, [_draw(renderer, cameras, state) for state in states], truth, slack)
    ring = Views.of(around, [_draw(renderer, around, states[0])], truth[:1], slack)
    parents = [-1 if parent is None else figure.keypoints.index(parent) for parent in figure.keypoint_parents]
    return Scene(
        name=character,
        reference=views.posed_images(range(1), frames),
        ring=ring.posed_images(range(RING_VIEWS), frames),
        keypoints=exact_keypoints(figure.keypoints, tuple(parents), truth, views, ring),
        flow=_flow(renderer, views, states),
        test=views.posed_images(range(1, 1 + len(TEST_AZIMUTHS)), frames),
        truth=Truth(surface=_surface(bodies)),
    )


def _surface(bodies: list[GaussianState]) -> Float[Tensor, "T N 3"]:
    """Centres of the Gaussians that are there in all frames: they lie on the skin."""
    always = torch.stack([state.opacities for state in bodies]).amin(0) > _THERE
    return torch.stack([state.means[always] for state in bodies])


def _draw(renderer: Renderer, cameras: Cameras, state: GaussianState) -> Drawn:
    output = renderer(state, cameras.to(renderer.device), depth=True)
    assert output.depth is not None  # it was asked for
    alpha, image = output.alpha.cpu(), output.image.cpu()
    color = torch.where(alpha > 0, image / alpha.clamp_min(1e-6), 0)
    return Drawn(quantize(torch.cat([color, alpha], dim=-1)).float() / 255, output.depth.cpu(), alpha)


def _flow(renderer: Renderer, views: Views, states: list[GaussianState]) -> Flow:
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
