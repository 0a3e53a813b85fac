"""Left and right that a detector confuses in whole images are told apart by the other images."""

import torch

from kg4d.keypoints.sides import other_sides
from kg4d.priors.base import KeypointTracks
from kg4d.priors.keypoints.flips import flipped, unflipped_video, unflipped_views
from tests import make

NAMES = ["head", "left_hand", "right_hand", "left_foot", "right_foot"]
OTHERS = other_sides(NAMES)
BODY = torch.tensor([[0.0, 0.5, 0.0], [0.3, 0.1, 0.05], [-0.3, 0.1, 0.0], [0.15, -0.5, 0.1], [-0.15, -0.5, -0.1]])
FLIPS = torch.tensor([False, True, False, False, True, True, False, False])


def walking(frames: int = 8) -> KeypointTracks:
    """The body turns a little from frame to frame."""
    views = make.cameras([6.0 * t for t in range(frames)], size=128)
    uv = torch.stack([view.project(BODY).pixels[0] for view in (views[t] for t in range(frames))])
    return KeypointTracks(uv, torch.linspace(0.5, 1, 5).expand(frames, -1), torch.arange(5.0).expand(frames, -1))


def test_flipping_exchanges_all_that_belongs_to_a_keypoint_and_undoes_itself() -> None:
    tracks = walking()
    once = flipped(tracks, OTHERS, FLIPS)
    assert torch.equal(once.uv[1], tracks.uv[1, [0, 2, 1, 4, 3]])
    assert torch.equal(once.weights[1], tracks.weights[1, [0, 2, 1, 4, 3]])
    assert once.depths is not None
    assert once.depths[1].tolist() == [0, 2, 1, 4, 3]
    assert torch.equal(once.uv[0], tracks.uv[0])
    twice = flipped(once, OTHERS, FLIPS)
    assert torch.equal(twice.uv, tracks.uv)


def test_a_video_is_unflipped_to_what_most_frames_say() -> None:
    tracks = walking()
    assert torch.equal(unflipped_video(flipped(tracks, OTHERS, FLIPS), OTHERS).uv, tracks.uv)
    assert torch.equal(unflipped_video(tracks, OTHERS).uv, tracks.uv)
    mostly = flipped(tracks, OTHERS, ~FLIPS)
    assert torch.equal(unflipped_video(mostly, OTHERS).uv, flipped(tracks, OTHERS, torch.ones(8).bool()).uv)


def test_limbs_that_cross_keep_their_names() -> None:
    """Seen from the side, feet swing past each other: they would move less if each turned back as the other."""
    names = ["head", "left_hip", "right_hip", "left_foot", "right_foot"]
    swing = 8.0 * (0.7 * torch.arange(12) + 0.3).cos()
    uv = torch.tensor([[64.0, 14.0], [63.5, 64.0], [64.5, 64.0], [64.0, 114.0], [64.0, 114.0]]).repeat(12, 1, 1)
    uv[:, 3, 0] += swing
    uv[:, 4, 0] -= swing
    tracks = KeypointTracks(uv, torch.ones(12, 5))
    assert torch.equal(unflipped_video(tracks, other_sides(names)).uv, tracks.uv)


def test_a_single_frame_stays() -> None:
    tracks = walking(1)
    assert torch.equal(unflipped_video(tracks, OTHERS).uv, tracks.uv)


def test_views_are_unflipped_to_what_has_a_place_in_space() -> None:
    cameras = make.cameras([45.0 * view for view in range(8)], size=128)
    uv = cameras.project(BODY).pixels
    tracks = KeypointTracks(uv, torch.ones(8, 5))
    found = unflipped_views(flipped(tracks, OTHERS, FLIPS), OTHERS, cameras)
    assert torch.equal(found.uv, uv)
