"""A procedural room: a character walks through it, seen by a hand-held camera; a second one beside it is held out."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kg4d.data.batches.batch import step_generator
from kg4d.data.images import quantize
from kg4d.data.records import Depth, Flow, PosedImages, Scene, Truth
from kg4d.data.sizes import Size
from kg4d.data.synthetic.body import build_body, pose_at, pose_body
from kg4d.data.synthetic.characters import CHARACTERS
from kg4d.errors import InputError
from kg4d.gaussians.points import PointCloud
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import look_at
from kg4d.geometry.rotations import matrix_to_quat
from kg4d.geometry.sampling import pixel_centers, sample_image
from kg4d.render.base import Renderer, RenderOutput

NAME = "room"
_BODY, _SPACING = 4000, 0.035  # Gaussians of the character; distance of two on a wall, world units
_FLOOR, _WALL, _HALF, _HIGH = -0.66, -1.1, 1.6, 1.3  # floor's height, wall's depth, half width, wall's upper edge
_POINTS, _BENEATH, _NOISE = 1500, 0.2, 0.004  # of the point cloud: how many, how many of them on the character, error
_COVERED, _HIDDEN = 0.5, 1.05  # of the truth: least coverage; how much nearer than a point what hides it is
_RADIUS, _SWEEP, _BASELINE = 2.7, 20.0, 0.3  # of the camera's path: distance, half angle (degrees), to the second one


@torch.no_grad()
def make_room(renderer: Renderer, size: int | Size = 160, frames: int = 24, seed: int = 0) -> Scene:
    """Render the room, as a scene of the layouts of moving cameras: no mattes, no keypoints, points of both.

    Args:
        renderer: Renders the images; another renderer changes the scene by rounding only.
        size: Longer side of the images, px, which are four wide and three high; or their size.
        frames: Number of frames T, at least 2.
        seed: Of colours, points and the camera's path.

    Raises:
        InputError: There are fewer than two frames.
    """
    if frames < 2:
        raise InputError(f"synthetic:{NAME}", f"cannot move in {frames} frames", "make at least two")
    generator, shape = step_generator(seed, NAME, 0), Size(4, 3).within(size)
    still, figure = _still(generator), CHARACTERS["walker"]()
    body, times = build_body(figure, _BODY, generator), torch.linspace(0, 1, frames)
    moving = [_walked(pose_body(body, pose_at(figure, 1.5 * time)), time) for time in times.tolist()]
    paths = _paths(times, shape)
    videos = [_film(renderer, cameras, still, moving) for cameras in paths]
    reference, test = (
        PosedImages(cameras, images, times, torch.arange(frames), torch.zeros(frames, dtype=torch.int64))
        for cameras, images in zip(paths, videos, strict=True)
    )
    masks = torch.cat([_mask(renderer, paths[1][index], still, state) for index, state in enumerate(moving)])
    cloud, truth = _cloud(still, moving[0], generator), _truth(renderer, paths[0], still, moving)
    return Scene(NAME, reference, test=test, points=cloud, regions={"dynamic": masks}, truth=truth, backdrop=True)


def _paths(times: Float[Tensor, " T"], size: Size) -> tuple[Cameras, Cameras]:
    """The cameras of both videos: along an arc, with the small sways of a hand."""
    angles, level = torch.deg2rad(_SWEEP * (2 * times - 1)), torch.zeros_like(times)
    sway = 0.02 * torch.stack([(9 * times).sin(), (13 * times + 1).sin(), (11 * times + 2).sin()], dim=-1)
    eyes = torch.stack([_RADIUS * angles.sin(), level + 0.25, _RADIUS * angles.cos() - 0.3], dim=-1) + sway
    across = torch.stack([angles.cos(), level, -angles.sin()], dim=-1)
    focal = 0.95 * size.width
    K = torch.tensor([[focal, 0, 0.51 * size.width], [0, focal, 0.48 * size.height], [0, 0, 1.0]])
    target, up = torch.tensor([0.0, 0.05, -0.3]), torch.tensor([0.0, 1.0, 0.0])
    first, second = (
        Cameras(look_at(eyes + beside * across, target, up), K.repeat(len(times), 1, 1), *size)
        for beside in (0.0, _BASELINE)
    )
    return first, second


def _film(
    renderer: Renderer, cameras: Cameras, still: GaussianState, moving: list[GaussianState]
) -> Float[Tensor, "T H W 4"]:
    whole = [_joined(still, state).to(renderer.device) for state in moving]
    on_device = cameras.to(renderer.device)
    images = torch.cat([renderer(state, on_device[index]).image.cpu() for index, state in enumerate(whole)])
    colors = quantize(images).float() / 255
    return torch.cat([colors, torch.ones_like(colors[..., :1])], dim=-1)


def _mask(renderer: Renderer, camera: Cameras, still: GaussianState, state: GaussianState) -> Bool[Tensor, "1 H W"]:
    """Where the character is most of what a pixel shows."""
    features = torch.cat([torch.zeros(len(still), 1), torch.ones(len(state), 1)]).to(renderer.device)
    whole = _joined(still, state).to(renderer.device)
    return renderer(whole, camera.to(renderer.device), features=features).image[..., 0].cpu() > 0.5


def _truth(renderer: Renderer, cameras: Cameras, still: GaussianState, moving: list[GaussianState]) -> Truth:
    """Depth and motion of what the first camera shows, as it is drawn."""
    states = [_joined(still, state).to(renderer.device) for state in moving]
    views = [cameras[index].to(renderer.device) for index in range(len(cameras))]
    depths = torch.stack([_depth(renderer(state, view, depth=True)) for state, view in zip(states, views, strict=True)])
    flows, weights = [], []
    for index, (state, later) in enumerate(itertools.pairwise(states)):
        then = views[index + 1].project(later.means)
        motion = then.pixels[0] - views[index].project(state.means).pixels[0]
        drawn = renderer(state, views[index], features=torch.cat([motion, then.depths[0][:, None]], dim=-1))
        shown = (drawn.image / drawn.alpha.clamp_min(_COVERED))[0].cpu()
        flow, depth = shown[..., :2], shown[..., 2:]
        ends = pixel_centers(cameras.height, cameras.width) + flow
        hides = sample_image(depths[index + 1][..., None], ends)
        inside = ((ends >= 0) & (ends <= ends.new_tensor([cameras.width, cameras.height]))).all(-1)
        flows.append(flow)
        weights.append((inside & (depth < _HIDDEN * hides)[..., 0] & (drawn.alpha[0, ..., 0].cpu() > _COVERED)).float())
    masks = torch.cat([_mask(renderer, cameras[index], still, state) for index, state in enumerate(moving)])
    return Truth(Depth(depths, (depths > 0).float()), Flow(torch.stack(flows), torch.stack(weights)), masks)


def _depth(drawn: RenderOutput) -> Float[Tensor, "H W"]:
    """The expected depth of one image where most of a pixel is covered, else 0."""
    assert drawn.depth is not None  # it was asked for
    depth: Tensor = torch.where(drawn.alpha > _COVERED, drawn.depth, 0)[0, ..., 0].cpu()
    return depth


def _walked(state: GaussianState, time: float) -> GaussianState:
    """The character on its way, there and back.

    On a straight way beside the camera's it would look like something at another depth that stands still.
    """
    phase = 2 * math.pi * time
    return replace(state, means=state.means + torch.tensor([0.3 * math.sin(phase), 0.0, 0.12 * math.cos(phase)]))


def _joined(*parts: GaussianState) -> GaussianState:
    names = ("means", "quats", "scales", "opacities", "colors", "keypoint_logits")
    return GaussianState(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _cloud(still: GaussianState, state: GaussianState, generator: torch.Generator) -> PointCloud:
    """Points as from structure from motion: some of each, off by a little."""
    beneath = round(_BENEATH * _POINTS)
    parts = []
    for part, count in ((still, _POINTS - beneath), (state, beneath)):
        rows = torch.randperm(len(part), generator=generator)[:count]
        noise = _NOISE * torch.randn(len(rows), 3, generator=generator)
        parts.append((part.means[rows] + noise, part.colors[rows]))
    points, colors = (torch.cat(values) for values in zip(*parts, strict=True))
    return PointCloud(points, colors.clamp(0, 1))


def _still(generator: torch.Generator) -> GaussianState:
    """Floor, three walls and a box, as discs that overlap."""
    box = (0.75, -0.75, 0.45)  # x and z of its middle, side
    x, z, side = box
    right, upwards, outwards = (torch.eye(3)[axis] for axis in range(3))
    middle, top = _FLOOR + side / 2, _FLOOR + side
    walls = [
        _wall((0.0, _FLOOR, 0.2), right, outwards, _HALF, 1.4, _planks, generator),
        _wall((0.0, (_FLOOR + _HIGH) / 2, _WALL), right, upwards, _HALF, (_HIGH - _FLOOR) / 2, _bricks, generator),
        *(
            _wall((x, (_FLOOR + _HIGH) / 2, 0.2), outwards, upwards, 1.4, (_HIGH - _FLOOR) / 2, _stripes, generator)
            for x in (-_HALF, _HALF)
        ),
        _wall((x, middle, z + side / 2), right, upwards, side / 2, side / 2, _checks, generator),
        _wall((x - side / 2, middle, z), outwards, upwards, side / 2, side / 2, _checks, generator),
        _wall((x, top, z), right, outwards, side / 2, side / 2, _checks, generator),
    ]
    return _joined(*walls)


_Texture = Callable[[Tensor, Tensor], Tensor]


def _wall(
    center: tuple[float, float, float],
    along: Float[Tensor, " 3"],
    across: Float[Tensor, " 3"],
    half_along: float,
    half_across: float,
    texture: _Texture,
    generator: torch.Generator,
) -> GaussianState:
    """A rectangle of flat Gaussians."""
    u, v = (torch.linspace(-half, half, max(2, round(2 * half / _SPACING))) for half in (half_along, half_across))
    u, v = (grid.flatten() for grid in torch.meshgrid(u, v, indexing="ij"))
    means = torch.tensor(center) + u[:, None] * along + v[:, None] * across
    frame = torch.stack([along, across, torch.linalg.cross(along, across)], dim=-1)
    colors = texture(u, v) + 0.02 * torch.randn(len(u), 3, generator=generator)
    return GaussianState(
        means,
        matrix_to_quat(frame).expand(len(u), 4).clone(),
        torch.tensor([0.55 * _SPACING, 0.55 * _SPACING, 0.004]).expand(len(u), 3).clone(),
        torch.full((len(u),), 0.97),
        colors.clamp(0, 1),
        torch.zeros(len(u), 0),
    )


def _mixed(share: Tensor, one: tuple[float, float, float], other: tuple[float, float, float]) -> Tensor:
    return torch.lerp(torch.tensor(one), torch.tensor(other), share[:, None])


def _planks(u: Tensor, v: Tensor) -> Tensor:
    row = (v / 0.28).floor()
    joint = (((v / 0.28).frac().abs() < 0.12) | (((u + 0.37 * row) / 0.9).frac().abs() < 0.04)).float()
    return _mixed(joint, (0.62, 0.43, 0.26), (0.3, 0.2, 0.12)) * (0.9 + 0.1 * (7 * row).sin()[:, None])


def _bricks(u: Tensor, v: Tensor) -> Tensor:
    row = (v / 0.2).floor()
    joint = (((v / 0.2) % 1 < 0.18) | (((u + 0.2 * (row % 2)) / 0.4) % 1 < 0.09)).float()
    return _mixed(joint, (0.6, 0.28, 0.22), (0.8, 0.76, 0.7))


def _stripes(u: Tensor, v: Tensor) -> Tensor:
    return _mixed(((u / 0.3) % 1 < 0.5).float(), (0.3, 0.42, 0.5), (0.75, 0.78, 0.7))


def _checks(u: Tensor, v: Tensor) -> Tensor:
    odd = ((u / 0.11).floor() + (v / 0.11).floor()) % 2
    return _mixed(odd, (0.85, 0.75, 0.2), (0.2, 0.25, 0.45))
