"""D-NeRF scenes: a video whose camera may jump from frame to frame, and test images at other times.

Source: Pumarola et al. 2021, "D-NeRF: neural radiance fields for dynamic scenes"; the layout is that of its data set.
"""

from pathlib import Path

from kg4d.data.readers.parts import read_parts
from kg4d.data.records import Scene
from kg4d.data.sizes import Size

_TRAIN, _TEST = "transforms_train.json", "transforms_test.json"
_OF_SCENE_FOLDERS = ("transforms_ring.json", "keypoints.npz", "flow.npz", "points.npy", "scene.json")


class DNerf:
    """Reads D-NeRF scenes. `transforms_val.json` is ignored."""

    format = f"D-NeRF ({_TRAIN}, {_TEST})"

    def recognises(self, path: Path) -> bool:
        """Whether there is a video, and no file that only scene folders have."""
        return (path / _TRAIN).exists() and not any((path / name).exists() for name in _OF_SCENE_FOLDERS)

    def read(self, path: Path, size: int | Size | None) -> Scene:
        """Read the video and the test images; see `Reader.read`."""
        read = read_parts(path, _TRAIN, (_TEST,), size)
        test = read[_TEST].posed if _TEST in read else None
        return Scene(name=path.resolve().name, reference=read[_TRAIN].posed, test=test, files=read[_TRAIN].files)
