"""Scenes whose video does not show the motion that is looked at."""

from dataclasses import replace

import torch

from kg4d.data.records import Keypoints, Scene


def unseen_motion(scene: Scene, count: int) -> Scene:
    """The scene with a video that stands still: `count` times its first frame, of whose motion nothing is known.

    Cameras, the ring of views and the keypoints of the first frame stay; held-out videos, flow, depth and what is true
    of other motions go.

    Args:
        scene: Any, with one frame or more.
        count: Frames of the motion, two or more.
    """
    first = torch.zeros(count, dtype=torch.int64)
    end = float(scene.reference.times[-1]) or 1.0  # a picture has a single time, 0
    still = replace(
        scene.reference[first],
        times=torch.linspace(0, end, count),
        frames=torch.arange(count),
    )
    return Scene(
        name=scene.name,
        reference=still,
        ring=scene.ring,
        keypoints=scene.keypoints and _of_first_frame(scene.keypoints, count),
        points=scene.points,
        backdrop=scene.backdrop,
        depth_range=scene.depth_range,
        cache_keys=scene.cache_keys,
        pictured=False,
    )


def _of_first_frame(keypoints: Keypoints, count: int) -> Keypoints:
    weights = torch.zeros(count, len(keypoints.names))
    weights[0] = keypoints.weights[0]
    return Keypoints(
        names=keypoints.names,
        parents=keypoints.parents,
        uv=keypoints.uv[:1].expand(count, -1, -1),
        weights=weights,
        ring_uv=keypoints.ring_uv,
        ring_weights=keypoints.ring_weights,
    )
