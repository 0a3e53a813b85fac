from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kg4d.data.records import Scene
from kg4d.data.scene import load_scene
from kg4d.data.scene_writer import write_scene
from kg4d.data.synthetic.characters import CHARACTERS
from kg4d.data.synthetic.scene import make_scene
from kg4d.errors import InputError
from kg4d.geometry.sampling import pixel_centers, sample_image
from kg4d.render.base import Renderer
from kg4d.render.build import build_renderer
from tests.compare import assert_same

SIZE, FRAMES = 64, 6


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return build_renderer("auto")


@pytest.fixture(scope="module", params=sorted(CHARACTERS))
def scene(request: pytest.FixtureRequest, renderer: Renderer) -> Scene:
    return make_scene(request.param, renderer, size=SIZE, frames=FRAMES)


def test_layout(scene: Scene):
    assert scene.reference.images.shape == (FRAMES, SIZE, SIZE, 4)
    assert scene.ring.images.shape == (16, SIZE, SIZE, 4)
    assert scene.test.images.shape == (4 * FRAMES, SIZE, SIZE, 4)
    assert scene.test.views.tolist() == [view for view in range(1, 5) for _ in range(FRAMES)]
    assert scene.test.frames.tolist() == list(range(FRAMES)) * 4
    assert torch.allclose(scene.reference.times, torch.linspace(0, 1, FRAMES))
    assert scene.keypoints.weights.shape == (FRAMES, 14)
    assert scene.flow.flow.shape == (FRAMES - 1, SIZE, SIZE, 2)
    assert torch.allclose(scene.reference.images[0], scene.ring.images[0], atol=1e-6)


def test_the_figure_fills_the_images_and_stays_inside(scene: Scene):
    for posed in (scene.reference, scene.ring, scene.test):
        alphas = posed.alphas[..., 0]
        edge = torch.cat([alphas[:, 0], alphas[:, -1], alphas[:, :, 0], alphas[:, :, -1]], dim=1)
        assert edge.max() == 0
        assert (alphas.mean((1, 2)) > 0.03).all()
        assert (alphas.amax((1, 2)) > 0.98).all()


def test_it_moves_and_has_texture(scene: Scene):
    images = scene.reference.composited(torch.ones(3))
    assert ((images[1:] - images[:-1]).abs().mean((1, 2, 3)) > 0.005).all()
    inside = scene.reference.images[0][scene.reference.alphas[0, ..., 0] > 0.9]
    assert inside[:, :3].std(0).min() > 0.1


def test_keypoints_reproject(scene: Scene):
    keypoints = scene.keypoints
    ring = scene.ring.cameras.project(keypoints.truth[0]).pixels
    assert torch.allclose(ring, keypoints.ring_uv, atol=1e-3)
    for frame in range(FRAMES):
        points = keypoints.truth[frame]
        assert torch.allclose(scene.reference.cameras[frame].project(points).pixels[0], keypoints.uv[frame], atol=1e-3)
        views = scene.test.cameras[torch.arange(4) * FRAMES + frame]
        assert torch.allclose(views.project(points).pixels, keypoints.test_uv[:, frame], atol=1e-3)


def test_keypoints_are_hidden_from_some_sides_only(scene: Scene):
    seen = scene.keypoints.ring_weights
    assert 0.5 < seen.mean() < 0.97
    assert (seen.sum(0) >= 3).all()  # every keypoint can be triangulated
    assert 0.5 < scene.keypoints.weights.mean() < 1
    on_figure = sample_image(scene.ring.alphas[0], scene.keypoints.ring_uv[0])
    assert (on_figure[seen[0] > 0] > 0.5).all()


def test_the_far_arm_is_hidden(renderer: Renderer):
    scene = make_scene("walker", renderer, size=SIZE, frames=2)
    names = scene.keypoints.names
    # The walker is rotated by 35 degrees, so its left side is best seen from azimuth 125, its right side from 305.
    from_left, from_right = scene.keypoints.ring_weights[[6, 14]]
    left, right = names.index("left_shoulder"), names.index("right_shoulder")
    assert from_left[[left, right]].tolist() == [1, 0]
    assert from_right[[left, right]].tolist() == [0, 1]


def test_the_flow_warps_the_next_frame_onto_this_one(scene: Scene):
    images = scene.reference.composited(torch.ones(3))
    still, warped = [], []
    for frame in range(FRAMES - 1):
        seen = scene.flow.weights[frame] > 0
        moved = sample_image(images[frame + 1], pixel_centers(SIZE, SIZE) + scene.flow.flow[frame])
        warped.append((moved - images[frame])[seen].abs().mean())
        still.append((images[frame + 1] - images[frame])[seen].abs().mean())
    assert torch.stack(warped).mean() < 0.35 * torch.stack(still).mean()
    fraction = scene.flow.weights.sum() / (scene.reference.alphas[:-1] > 0.5).sum()
    assert 0.6 < fraction < 1


def test_the_flow_at_keypoints_near_the_surface_is_their_motion(renderer: Renderer):
    """A wrist lies 4 hundredths below the skin: its motion is that of the pixels in front of it."""
    scene = make_scene("walker", renderer, size=SIZE, frames=12)
    keypoints = scene.keypoints
    joint = keypoints.names.index("right_wrist")
    errors, lengths = [], []
    for frame in range(11):
        at = keypoints.uv[frame, joint]
        if keypoints.weights[frame, joint] > 0 and sample_image(scene.flow.weights[frame][..., None], at) == 1:
            motion = keypoints.uv[frame + 1, joint] - at
            errors.append((sample_image(scene.flow.flow[frame], at) - motion).norm())
            lengths.append(motion.norm())
    assert len(errors) >= 5
    assert torch.stack(errors).mean() < 0.4 * torch.stack(lengths).mean()


def test_the_same_call_gives_the_same_bytes(renderer: Renderer):
    first, again = (make_scene("swimmer", renderer, size=24, frames=2, seed=3) for _ in range(2))
    assert_same(first, again, atol=0)
    other = make_scene("swimmer", renderer, size=24, frames=2, seed=4)
    assert not torch.equal(first.reference.images, other.reference.images)
    assert torch.equal(first.keypoints.truth, other.keypoints.truth)


def test_it_survives_the_disk(scene: Scene, tmp_path: Path):
    write_scene(scene, tmp_path / scene.name)
    assert_same(load_scene(tmp_path / scene.name), replace(scene, truth=None), atol=2e-6)


def test_impossible_wishes_are_named(renderer: Renderer):
    with pytest.raises(
        InputError, match=r"dragon: no such character \(choose lamplighter or swimmer or walker, or synthetic:room\)"
    ):
        make_scene("dragon", renderer)
    with pytest.raises(InputError, match="two"):
        make_scene("walker", renderer, frames=1)


def test_a_long_clip_is_the_loop_again_and_again(renderer: Renderer):
    short, long = (make_scene("walker", renderer, size=24, frames=frames, cycle=4) for frames in (4, 10))
    assert torch.equal(long.reference.images[4:8], short.reference.images)
    assert torch.equal(long.reference.images[8:], short.reference.images[:2])
    assert not torch.equal(short.reference.images[1], short.reference.images[0])


def test_parts_come_and_go(renderer: Renderer):
    """The lamp is there from .3 to .7 of the loop, the cap from .5 on: not in frame 0."""
    with_parts, without = (make_scene(name, renderer, size=32, frames=10) for name in ("lamplighter", "walker"))
    apart = (with_parts.test.alphas - without.test.alphas)[:10].amax((1, 2, 3))
    assert apart[:3].max() < 0.4  # the body alone, covered by a little larger Gaussians
    assert apart[3:].min() > 0.5
