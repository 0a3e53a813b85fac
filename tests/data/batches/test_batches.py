import itertools
import logging
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.data.batches.batch import DynamicBatch, StaticBatch, step_generator
from kg4d.data.batches.dynamic import DynamicDataModule, DynamicDataset
from kg4d.data.batches.settings import DynamicDataConfig, StaticDataConfig
from kg4d.data.batches.static import StaticDataModule, StaticDataset
from kg4d.data.records import Depth, Scene
from kg4d.errors import InputError
from kg4d.geometry.flow import chain_flows
from tests import make
from tests.make import FRAMES, JOINTS, RING, SIZE

WHITE = torch.ones(3)
TINY = make.tiny_scene()


def same(a: StaticBatch | DynamicBatch, b: StaticBatch | DynamicBatch) -> bool:
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "cameras":
            equal = torch.equal(x.viewmats, y.viewmats) and torch.equal(x.Ks, y.Ks)
        elif isinstance(x, torch.Tensor):
            equal = torch.equal(x, y)
        else:
            equal = x == y
        if not equal:
            return False
    return True


def modules(scene: Scene, seed: int, first_step: int) -> list[StaticDataModule | DynamicDataModule]:
    return [
        StaticDataModule(scene, StaticDataConfig(2), WHITE, seed, first_step),
        DynamicDataModule(scene, DynamicDataConfig(2, [1, 2]), WHITE, seed, first_step),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_a_resumed_loader_gives_the_same_batches(tiny_scene: Scene, which: int):
    whole = list(itertools.islice(modules(tiny_scene, 7, 0)[which].train_dataloader(), 9))
    resumed = list(itertools.islice(modules(tiny_scene, 7, 5)[which].train_dataloader(), 4))
    assert [batch.step for batch in resumed] == [5, 6, 7, 8]
    assert all(same(a, b) for a, b in zip(whole[5:], resumed, strict=True))


@pytest.mark.parametrize("which", [0, 1])
def test_a_batch_depends_on_seed_and_step_alone(tiny_scene: Scene, which: int):
    dataset = modules(tiny_scene, 7, 0)[which].dataset
    before = dataset.batch(3)
    torch.rand(5)
    dataset.batch(8)
    assert same(before, dataset.batch(3))
    assert not all(same(replace(dataset.batch(step), step=3), before) for step in range(4, 12))
    others = [modules(tiny_scene, seed, 0)[which].dataset.batch(3) for seed in range(8, 16)]
    assert not all(same(before, other) for other in others)


def test_the_random_numbers_of_a_step_are_fixed_for_all_time():
    assert step_generator(0, "static views", 0).initial_seed() == 12597916543282644386
    seeds = {step_generator(s, n, k).initial_seed() for s in range(3) for n in ("a", "b") for k in range(50)}
    assert len(seeds) == 300


def test_static_batches_hold_the_ring(tiny_scene: Scene):
    dataset = StaticDataset(tiny_scene, StaticDataConfig(4), torch.tensor([0.2, 0.4, 0.6]), 0)
    ring, composited = tiny_scene.ring, tiny_scene.ring.composited(torch.tensor([0.2, 0.4, 0.6]))
    seen = set()
    for step in range(20):
        batch = dataset.batch(step)
        assert batch.step == step
        assert batch.images.shape == (4, SIZE, SIZE, 3)
        views = [int((ring.cameras.viewmats == v).all((1, 2)).nonzero()[0]) for v in batch.cameras.viewmats]
        assert len(set(views)) == 4
        assert torch.equal(batch.images, composited[views])
        assert torch.equal(batch.alphas, ring.alphas[views])
        assert torch.equal(batch.keypoints, tiny_scene.keypoints.ring_uv[views])
        assert torch.equal(batch.keypoint_weights, tiny_scene.keypoints.ring_weights[views])
        seen |= set(views)
    assert seen == set(range(RING))


def test_all_views_where_there_are_fewer(tiny_scene: Scene):
    batch = StaticDataset(tiny_scene, StaticDataConfig(99), WHITE, 0).batch(0)
    assert len(batch.cameras) == RING


def test_without_a_ring_the_first_frame_of_a_fixed_camera(tiny_scene: Scene, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "kg4d"):
        batch = StaticDataset(replace(tiny_scene, ring=None), StaticDataConfig(), WHITE, 0).batch(0)
    assert torch.equal(batch.images, tiny_scene.reference.composited(WHITE)[:1])
    assert torch.equal(batch.keypoints, tiny_scene.keypoints.uv[:1])
    assert "frame 0" in caplog.text


def test_without_a_ring_all_frames_of_a_moving_camera(tiny_scene: Scene, caplog: pytest.LogCaptureFixture):
    moving = make.cameras([10.0 * t for t in range(FRAMES)], size=SIZE)
    scene = replace(tiny_scene, ring=None, reference=replace(tiny_scene.reference, cameras=moving))
    with caplog.at_level(logging.INFO, "kg4d"):
        batch = StaticDataset(scene, StaticDataConfig(99), WHITE, 0).batch(0)
    assert len(batch.cameras) == FRAMES
    assert "all 4 frames" in caplog.text


def test_without_keypoints_there_are_none(tiny_scene: Scene):
    scene = replace(tiny_scene, keypoints=None, flow=None)
    static = StaticDataset(scene, StaticDataConfig(2), WHITE, 0).batch(0)
    dynamic = DynamicDataset(scene, DynamicDataConfig(2), WHITE, 0).batch(0)
    assert static.keypoints.shape == dynamic.keypoints.shape == (2, 0, 2)
    assert static.keypoint_weights.shape == dynamic.keypoint_weights.shape == (2, 0)
    assert dynamic.flow is dynamic.flow_weights is None


@given(st.integers(1, FRAMES - 1), st.lists(st.integers(1, FRAMES - 1), min_size=1, max_size=3), st.integers(0, 300))
def test_pairs_lie_in_the_video_and_agree_with_frames_and_strides(wanted: int, strides: list[int], step: int):
    scene = TINY
    batch = DynamicDataset(scene, DynamicDataConfig(wanted, strides), WHITE, 0).batch(step)
    assert len(batch.frames) == wanted
    assert len(batch.pairs) == len(batch.strides) <= wanted // 2
    assert batch.frames.min() >= 0
    assert batch.frames.max() < FRAMES
    assert torch.equal(batch.frames[batch.pairs[:, 1]] - batch.frames[batch.pairs[:, 0]], batch.strides)
    assert set(batch.strides.tolist()) <= set(strides)
    assert torch.equal(batch.times, scene.reference.times[batch.frames])
    assert torch.equal(batch.images, scene.reference.composited(WHITE)[batch.frames])
    assert torch.equal(batch.keypoints, scene.keypoints.uv[batch.frames])
    for pair, (earlier, _) in enumerate(batch.pairs.tolist()):
        frame = int(batch.frames[earlier])
        along = slice(frame, frame + int(batch.strides[pair]))
        chained = chain_flows(scene.flow.flow[along], scene.flow.weights[along])
        known = chained.weights > 0
        assert torch.equal(batch.flow[pair][known], chained.flow[known])
        assert torch.equal(batch.flow_weights[pair], chained.weights)


def test_all_frames_and_all_pairs_where_the_video_is_short(tiny_scene: Scene):
    batch = DynamicDataset(tiny_scene, DynamicDataConfig(FRAMES, [1, 2]), WHITE, 0).batch(0)
    assert batch.frames.tolist() == list(range(FRAMES))
    assert batch.pairs.tolist() == [[0, 1], [1, 2], [2, 3], [0, 2], [1, 3]]
    assert batch.strides.tolist() == [1, 1, 1, 2, 2]
    assert torch.equal(batch.flow_weights[:3], tiny_scene.flow.weights)
    two_steps = batch.flow[3:][batch.flow_weights[3:] > 0]
    assert torch.allclose(two_steps, torch.tensor([1.0, 0.0]).expand(len(two_steps), 2))
    assert len(two_steps) > 40


@pytest.mark.parametrize("wanted", [1, 2, 3])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("rests_first", [True, False])
def test_all_frames_that_teach_come_as_often(tiny_scene: Scene, wanted: int, paired: bool, rests_first: bool):
    """The first and the last one too; frame 0 at rest only where a pair begins with it."""
    config = DynamicDataConfig(wanted, [1, 2])
    dataset = DynamicDataset(tiny_scene, config, WHITE, 0, paired=paired, rests_first=rests_first)
    steps, counts, pairs = 1200, torch.zeros(FRAMES), torch.zeros(FRAMES, FRAMES)
    for step in range(steps):
        frames, positions, _ = dataset._draw(step)
        assert len(frames) == wanted
        counts += torch.bincount(frames, minlength=FRAMES)
        for first, last in frames[positions].tolist():
            pairs[first, last] += 1
    counts[0] -= pairs[0].sum() if rests_first else 0
    expected = torch.full((FRAMES,), float(counts.sum()) / (FRAMES - rests_first))
    expected[0] *= not rests_first
    assert float(counts[0]) == 0 or not rests_first
    torch.testing.assert_close(counts, expected, atol=4 * float(expected.max()) ** 0.5, rtol=0)
    chosen = [(t, t + stride) for stride in (1, 2) for t in range(FRAMES - stride)]
    if paired and wanted > 1:
        assert min(float(pairs[pair]) for pair in chosen) > 0.7 * steps / FRAMES / 2
    assert float(pairs.sum()) == sum(float(pairs[pair]) for pair in chosen)
    assert paired or float(pairs.sum()) == 0


def test_a_video_that_is_seen_as_a_whole_leaves_out_what_teaches_nothing(tiny_scene: Scene):
    def frames(**how: bool) -> list[int]:
        return DynamicDataset(tiny_scene, DynamicDataConfig(FRAMES), WHITE, 0, **how).batch(0).frames.tolist()

    assert frames(paired=False, rests_first=True) == [1, 2, 3]
    assert frames(paired=False) == frames(paired=True, rests_first=True) == [0, 1, 2, 3]


def test_test_videos_join_without_keypoints_when_asked(tiny_scene: Scene):
    assert tiny_scene.test is not None
    everything = FRAMES + len(tiny_scene.test)
    batch = DynamicDataset(tiny_scene, DynamicDataConfig(everything, test_views=True), WHITE, 0).batch(0)
    assert torch.equal(batch.images[FRAMES:], tiny_scene.test.composited(WHITE))
    assert torch.equal(batch.cameras.viewmats[FRAMES:], tiny_scene.test.cameras.viewmats)
    assert torch.equal(batch.frames[FRAMES:], tiny_scene.test.frames)
    assert torch.equal(batch.times[FRAMES:], tiny_scene.test.times)
    assert (batch.keypoint_weights[FRAMES:] == 0).all()
    assert (batch.keypoint_weights[:FRAMES] > 0).any()
    assert batch.flow is None
    assert len(DynamicDataset(tiny_scene, DynamicDataConfig(everything), WHITE, 0).batch(0).images) == FRAMES


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda scene: StaticDataset(scene, StaticDataConfig(0), WHITE, 0), "views_per_step"),
        (
            lambda scene: DynamicDataset(replace(scene, test=None), DynamicDataConfig(test_views=True), WHITE, 0),
            "test_views",
        ),
        (lambda scene: DynamicDataset(scene, DynamicDataConfig(0), WHITE, 0), "frames_per_step"),
        (lambda scene: DynamicDataset(scene, DynamicDataConfig(2, []), WHITE, 0), "strides"),
        (lambda scene: DynamicDataset(scene, DynamicDataConfig(2, [0]), WHITE, 0), "strides"),
        (lambda scene: DynamicDataset(scene, DynamicDataConfig(2, [FRAMES]), WHITE, 0), "strides"),
    ],
)
def test_impossible_settings_are_named(tiny_scene: Scene, make, key: str):
    with pytest.raises(InputError, match=key):
        make(tiny_scene)


def test_batches_move_as_a_whole(tiny_scene: Scene):
    for batch in (module.dataset.batch(0).to("meta") for module in modules(tiny_scene, 0, 0)):
        tensors = [getattr(batch, field.name) for field in fields(batch)]
        tensors += [batch.cameras.viewmats, batch.cameras.Ks]
        assert {t.device.type for t in tensors if isinstance(t, torch.Tensor)} == {"meta"}
        assert batch.step == 0
        assert batch.keypoints.shape == (2, JOINTS, 2)


def with_depth(scene: Scene) -> Scene:
    """Depth in each frame is the number of the frame."""
    depth = torch.arange(FRAMES, dtype=torch.float32)[:, None, None].expand(FRAMES, SIZE, SIZE)
    return replace(scene, depth=Depth(depth, torch.ones_like(depth), inverse=True))


def test_depth_is_that_of_the_frames(tiny_scene: Scene):
    scene = with_depth(tiny_scene)
    for step in range(4):
        batch = DynamicDataset(scene, DynamicDataConfig(2), WHITE, 0).batch(step)
        assert batch.depth is not None
        assert batch.depth.depth[:, 0, 0].tolist() == batch.frames.tolist()
        assert batch.depth.inverse
        part = replace(batch, part=replace(batch.part, own=1)).counted()
        assert part.depth is not None
        assert len(part.depth) == 1
        moved = batch.to("meta").depth
        assert moved is not None
        assert moved.weights.device.type == "meta"
    everything = DynamicDataConfig(FRAMES, test_views=True)
    assert DynamicDataset(scene, everything, WHITE, 0).batch(0).depth is None
    assert DynamicDataset(tiny_scene, DynamicDataConfig(2), WHITE, 0).batch(0).depth is None


def test_views_of_the_first_frame_have_its_depth_where_they_are_of_the_video(tiny_scene: Scene):
    scene = with_depth(tiny_scene)
    assert StaticDataset(scene, StaticDataConfig(2), WHITE, 0).batch(0).depth is None  # the ring
    first = StaticDataset(replace(scene, ring=None), StaticDataConfig(2), WHITE, 0).batch(0).depth
    assert first is not None
    assert torch.equal(first.depth, torch.zeros(1, SIZE, SIZE))
    cameras = make.cameras([10.0 * t for t in range(FRAMES)], size=SIZE)
    moving = replace(scene, ring=None, reference=replace(scene.reference, cameras=cameras))
    batch = StaticDataset(moving, StaticDataConfig(2), WHITE, 0).batch(0)
    assert batch.depth is not None
    for image, depth in zip(batch.images, batch.depth.depth, strict=True):
        shown = scene.reference.composited(WHITE)[int(depth[0, 0])]
        assert torch.equal(image, shown)
