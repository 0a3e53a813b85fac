from dataclasses import replace

import pytest
import torch

from kg4d.data.batches.dynamic import DynamicDataset
from kg4d.data.batches.settings import DynamicDataConfig
from kg4d.data.studies.frame_subset import choose_frames, seen_frames, with_videos, without_ring, without_texture
from kg4d.data.studies.settings import FramesConfig
from kg4d.errors import InputError
from tests import make
from tests.make import FRAMES


def test_every_third_frame_keeps_its_time_and_its_keypoints() -> None:
    scene = make.tiny_scene()
    seen = choose_frames(scene, FramesConfig(every=3))
    assert seen.reference.times.tolist() == [0.0, 1.0]
    assert seen.reference.frames.tolist() == [0, 1]
    assert torch.equal(seen.reference.images, scene.reference.images[[0, 3]])
    assert seen.keypoints is not None
    assert scene.keypoints is not None
    assert torch.equal(seen.keypoints.uv, scene.keypoints.uv[[0, 3]])
    assert torch.equal(seen.keypoints.weights, scene.keypoints.weights[[0, 3]])
    assert seen.test is not None
    assert seen.test.frames.tolist() == [0, 1, 0, 1]
    assert seen.ring is scene.ring


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"hold_out": 2}, [0, 2, 3]),  # the last one stays
        ({"hold_out": 3}, [0, 2, 3]),
        ({"hold_out": 4}, [0, 1, 3]),
        ({"every": 2, "hold_out": 2}, [0, 2]),
        ({"hold_out": 9}, [0, 1, 2, 3]),
    ],
)
def test_frames_in_between_are_held_out(settings: dict[str, int], seen: list[int]) -> None:
    assert seen_frames(make.tiny_scene(), FramesConfig(**settings)).tolist() == seen


def test_one_frame_of_one_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match=r"frames.hold_out: must be 0 or at least 2, not 1"):
        FramesConfig(hold_out=1)


def test_test_images_between_all_frames_stay() -> None:
    scene = make.tiny_scene()
    assert scene.test is not None
    between = torch.tensor([0, FRAMES, FRAMES + 1, 3, 1, 2, FRAMES, 0])  # frames 0 and 3 are seen
    seen = choose_frames(replace(scene, test=replace(scene.test, frames=between)), FramesConfig(every=3))
    assert seen.test is not None
    assert seen.test.frames.tolist() == [0, 2, 3, 1, 2, 0]
    assert torch.equal(seen.test.images, scene.test.images[[0, 1, 2, 3, 6, 7]])


def test_test_videos_without_a_seen_frame_are_left_out() -> None:
    scene = make.tiny_scene()
    assert scene.test is not None
    unseen = scene.test[(scene.test.frames == 1).nonzero()[:, 0]]
    assert choose_frames(replace(scene, test=unseen), FramesConfig(every=3)).test is None


def test_the_flow_leads_over_the_frames_between() -> None:
    scene = make.tiny_scene()
    assert scene.flow is not None
    seen = choose_frames(scene, FramesConfig(every=2))
    assert seen.flow is not None
    assert len(seen.flow.flow) == 1
    followed = seen.flow.weights[0] > 0
    assert int(followed.sum()) > 10
    torch.testing.assert_close(seen.flow.flow[0][followed], torch.tensor([1.0, 0.0]).expand(int(followed.sum()), 2))


def test_all_frames_are_the_scene_itself_and_one_is_too_few() -> None:
    scene = make.tiny_scene()
    assert choose_frames(scene, FramesConfig()) is scene
    with pytest.raises(InputError, match="leaves one of the 4 frames"):
        choose_frames(scene, FramesConfig(every=FRAMES))
    with pytest.raises(ValueError, match=r"frames\.every: must be at least 1, not 0"):
        FramesConfig(every=0)


def test_without_texture_only_outlines_are_left() -> None:
    scene = make.tiny_scene()
    flat = without_texture(scene)
    colors = flat.reference.images[..., :3].flatten(0, 2).unique(dim=0)
    assert len(colors) == 1
    assert torch.equal(flat.reference.alphas, scene.reference.alphas)
    assert flat.ring is not None
    assert flat.test is not None
    assert torch.equal(flat.ring.images[0, 0, 0, :3], colors[0])
    assert torch.equal(flat.test.images[0, 0, 0, :3], colors[0])
    images = [scene.reference.images, scene.ring.images]  # type: ignore[union-attr]
    everything = torch.cat([image.flatten(0, 2) for image in images])
    mean = (everything[:, :3] * everything[:, 3:]).sum(0) / everything[:, 3].sum()
    torch.testing.assert_close(colors[0], mean)


def test_the_colour_tells_nothing_of_the_test_videos() -> None:
    scene = make.tiny_scene()
    assert scene.test is not None
    other = replace(scene, test=replace(scene.test, images=scene.test.images.flip(-1)))
    assert torch.equal(without_texture(other).reference.images, without_texture(scene).reference.images)


def test_without_its_ring_a_scene_is_a_video() -> None:
    scene = make.tiny_scene()
    alone = without_ring(scene)
    assert alone.ring is None
    assert alone.keypoints is not None
    assert alone.keypoints.ring_uv is None
    assert alone.keypoints.ring_weights is None
    assert alone.reference is scene.reference
    assert alone.test is scene.test


def test_videos_that_are_chosen_are_seen_and_the_others_measured() -> None:
    scene = make.tiny_scene()
    assert scene.test is not None
    found = with_videos(scene, FramesConfig(videos=[1]))
    assert found.videos is not None
    assert found.test is not None
    assert torch.equal(found.videos.images, scene.test.images[FRAMES:])
    assert torch.equal(found.test.images, scene.test.images[:FRAMES])
    assert found.keypoints is not None
    assert scene.keypoints is not None
    assert torch.equal(found.keypoints.test_uv, scene.keypoints.test_uv[:1])
    assert with_videos(scene, FramesConfig(videos=[0, 1])).test is None
    assert with_videos(scene, FramesConfig()) is scene
    batch = DynamicDataset(found, DynamicDataConfig(), torch.ones(3), 0, paired=False).batch(0)
    seen = [batch.cameras.viewmats[i] for i in range(4)]
    assert any(torch.allclose(view, found.videos.cameras.viewmats[0]) for view in seen)


@pytest.mark.parametrize("videos", [[2], [-1]])
def test_videos_that_are_not_there_are_an_error(videos: list[int]) -> None:
    with pytest.raises(InputError, match=r"2 test videos"):
        with_videos(make.tiny_scene(), FramesConfig(videos=videos))
    with pytest.raises(InputError, match=r"no test videos"):
        with_videos(replace(make.tiny_scene(), test=None), FramesConfig(videos=videos))
