"""Exact pictures of a posed body: coverage, colours lit from above, depth, and what each pixel centre shows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from kg4d.data.gltf.figure import Body
from kg4d.data.images import encoded_rgb, linear_rgb, quantize
from kg4d.data.turntable import Drawn
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.rasterization import Fragments, rasterize

SAMPLES = 3  # along each side of a pixel: odd, so that one of them is at its centre
_CENTRE = slice(SAMPLES // 2, None, SAMPLES)
_LIGHT = (0.35, 0.8, 0.5)  # direction towards the light, fixed in the world
_AMBIENT, _SKY, _DIRECT = 0.35, 0.1, 0.6  # amounts of light: from everywhere, from above rather than below, from there


def fine_fragments(body: Body, points: Float[Tensor, "V 3"], camera: Cameras) -> Fragments:
    """What one camera sees at `SAMPLES` x `SAMPLES` places of each pixel."""
    return rasterize(points, body.triangles, camera.resized(SAMPLES * camera.width, SAMPLES * camera.height))


def at_centres(fragments: Fragments) -> Fragments:
    """Of fine fragments, those at the centres of the pixels."""
    return Fragments(*(values[_CENTRE, _CENTRE] for values in fragments))


def draw(
    body: Body,
    textures: tuple[Tensor, ...],
    points: Float[Tensor, "V 3"],
    normals: Float[Tensor, "V 3"],
    cameras: Cameras,
) -> Drawn:
    """A posed body as each of the cameras sees it.

    Colours are Lambert shading of both sides, without shadows, averaged over the samples of a pixel that show the body;
    their share is alpha. Depth is at the centre of the pixel.

    Args:
        body: What is drawn.
        textures: Its textures, as in `Figure`.
        points: Its corners, world units.
        normals: At the corners, world axes.
        cameras: They have one size.
    """
    images, depths, covered = [], [], []
    for index in range(len(cameras)):
        fragments = fine_fragments(body, points, cameras[index])
        row, column = torch.nonzero(fragments.triangles >= 0).unbind(-1)
        colors = _shaded(body, textures, points, normals, cameras.centers[index], fragments, row, column)
        pixel = row // SAMPLES * cameras.width + column // SAMPLES
        sums = points.new_zeros(cameras.height * cameras.width, 4)
        sums.index_add_(0, pixel, torch.cat([colors, torch.ones_like(colors[:, :1])], dim=-1))
        rgba = torch.cat([sums[:, :3] / sums[:, 3:].clamp_min(1), sums[:, 3:] / SAMPLES**2], dim=-1)
        images.append(quantize(rgba.reshape(cameras.height, cameras.width, 4)).float() / 255)
        centre = at_centres(fragments)
        covered.append((centre.triangles >= 0).float()[..., None])
        depths.append(torch.where(centre.triangles >= 0, centre.depths, 0)[..., None])
    return Drawn(torch.stack(images), torch.stack(depths), torch.stack(covered))


def _shaded(
    body: Body,
    textures: tuple[Tensor, ...],
    points: Float[Tensor, "V 3"],
    normals: Float[Tensor, "V 3"],
    eye: Float[Tensor, " 3"],
    fragments: Fragments,
    row: Int[Tensor, " n"],
    column: Int[Tensor, " n"],
) -> Float[Tensor, "n 3"]:
    triangle, weights = fragments.triangles[row, column], fragments.weights[row, column]
    corners = body.triangles[triangle]

    def between(values: Float[Tensor, "V D"]) -> Float[Tensor, "n D"]:
        first, second, third = (weights[:, i : i + 1] * values.to(weights)[corners[:, i]] for i in range(3))
        return first + second + third

    albedo = between(body.colors)
    for number, texture in enumerate(textures):
        chosen = body.textures[triangle] == number
        albedo[chosen] *= linear_rgb(_texels(texture, between(body.uv)[chosen]))
    a, b, c = points[corners].unbind(1)
    outward = torch.linalg.cross(b - a, c - a)
    normal = between(normals)
    # a normal lies on the outer side of its triangle, and the side that is seen is lit
    sides = (outward * normal).sum(-1).sign() * (outward * (eye - a)).sum(-1).sign()
    normal = normalize(normal, dim=-1) * sides[:, None]
    direct = (normal @ normalize(normal.new_tensor(_LIGHT), dim=-1)).clamp_min(0)
    light = _AMBIENT + _SKY * normal[:, 1] + _DIRECT * direct
    return encoded_rgb(albedo * light[:, None])


def _texels(texture: Float[Tensor, "h w 3"], uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Bilinear values of a texture that repeats itself."""
    height, width = texture.shape[:2]
    place = (uv - uv.floor()) * uv.new_tensor([width, height]) - 0.5
    first = place.floor()
    share = place - first
    columns, rows = (first[:, :1].long() + torch.arange(2)) % width, (first[:, 1:].long() + torch.arange(2)) % height
    square = texture.to(uv)[rows[:, :, None], columns[:, None]]  # (n, 2, 2, 3)
    lines = torch.lerp(square[:, :, 0], square[:, :, 1], share[:, None, :1])
    return torch.lerp(lines[:, 0], lines[:, 1], share[:, 1:])
