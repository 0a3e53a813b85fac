"""Cameras around the object of a scene, in no axes but its own."""

from jaxtyping import Float
from torch import Tensor

from kg4d.data.readers.viewpoints import looked_at
from kg4d.data.records import Scene
from kg4d.geometry.cameras import Cameras, joined
from kg4d.geometry.orbits import turned


def cameras_around(scene: Scene, degrees: Float[Tensor, " C"]) -> Cameras:
    """The first camera of the reference video, carried around the object; at 0 degrees it is that camera.

    It turns about what the cameras look at, and about the mean of what is upwards in their images: a camera that
    looks down on the object goes on doing so, and a world with another axis upwards changes nothing.

    Args:
        scene: Its reference video, and the ring if it has one.
        degrees: Angles, to the right of the reference camera.
    """
    parts = [scene.reference.cameras] if scene.ring is None else [scene.reference.cameras, scene.ring.cameras]
    upwards = -joined(parts).viewmats[:, 1, :3]
    return turned(scene.reference.cameras[0], degrees, looked_at(parts), upwards.mean(0))
