"""Every format from a model that is no run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from torch import Tensor

from kg4d import export
from kg4d.formats.base import Exporter, ExportSource
from kg4d.formats.build import build_exporter
from kg4d.formats.settings import ExportFormat
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render.build import build_renderer
from tests import make


class Rising:
    """One Gaussian that rises by half a unit."""

    renderer = build_renderer("reference")
    background = torch.ones(3)

    def states(self, times: Tensor) -> list[GaussianState]:
        heights = [torch.tensor([[0.0, 0.5 * time, 0.0]]) for time in times.tolist()]
        return [make.gaussians(mean, scales=0.1, colors=[1.0, 0.0, 0.0]) for mean in heights]

    def pieces(self) -> Pieces | None:
        return None

    def keypoints(self, times: Tensor) -> Tensor:
        return torch.stack([state.means.expand(3, 3) for state in self.states(times)])

    def render(self, cameras: Cameras, times: Tensor) -> Tensor:
        images = [self.renderer(s, cameras[m], background=self.background) for m, s in enumerate(self.states(times))]
        return torch.cat([image.image for image in images])

    def depth(self, cameras: Cameras, times: Tensor) -> Tensor:
        images = [self.renderer(s, cameras[m], depth=True) for m, s in enumerate(self.states(times))]
        return torch.cat([image.depth[..., 0] for image in images])

    def flow(self, cameras: Cameras, times: Tensor) -> Tensor:
        now, later = (cameras[m].project(s.means).pixels[0] for m, s in enumerate(self.states(times)))
        return (later - now).expand(cameras.height, cameras.width, 2)


@pytest.fixture
def source() -> ExportSource:
    return ExportSource(Rising(), make.tiny_scene(), fps=4)


FRAMES = [f"frame_{index:04d}" for index in range(4)]
FILES = {
    ExportFormat.PLY: ["index.json", *(f"{name}.ply" for name in FRAMES)],
    ExportFormat.SPZ: [f"{name}.spz" for name in FRAMES],
    ExportFormat.SPLAT: [f"{name}.splat" for name in FRAMES],
    ExportFormat.NATIVE: ["model.safetensors"],
    ExportFormat.USD: ["gaussians.usdc"],
    ExportFormat.GLTF: ["animated.glb"],
    ExportFormat.BVH: ["skeleton.bvh"],
    ExportFormat.TRACKS: ["tracks.json"],
    ExportFormat.MP4: ["orbit.mp4", "reference.mp4", "test_0.mp4", "test_1.mp4"],
    ExportFormat.GIF: ["orbit.gif", "reference.gif"],
    ExportFormat.VIEWER: ["viewer.html"],
}


@pytest.mark.parametrize("kind", ExportFormat)
def test_every_format_says_what_it_has_written(kind: ExportFormat, source: ExportSource, tmp_path: Path) -> None:
    exporter = build_exporter(kind)
    assert isinstance(exporter, Exporter)
    made = exporter(source, tmp_path)
    assert all(path.exists() and tmp_path in path.parents for path in made.paths)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(FILES[kind])
    assert made.videos == [path for path in made.paths if path.suffix == ".mp4"]
    assert (kind is ExportFormat.MP4) == bool(made.videos)


def test_what_the_scene_lacks_is_left_out(source: ExportSource, tmp_path: Path) -> None:
    bare = replace(source, scene=replace(source.scene, test=None, keypoints=None))
    names = [path.name for path in build_exporter(ExportFormat.MP4)(bare, tmp_path).paths]
    assert names == ["reference.mp4", "orbit.mp4"]
    with_skeleton, without = (
        build_exporter(ExportFormat.VIEWER)(one, tmp_path / name).paths[0].stat().st_size
        for name, one in (("with", source), ("without", bare))
    )
    assert without < with_skeleton


def test_the_command_lists_the_formats_before_it_loads_anything() -> None:
    for kind in ExportFormat:
        assert f" {kind}" in export.parser().format_help()
    code = "import sys, kg4d.export as e; e.parser().format_help(); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_of_places_the_held_out_camera_also_has_depth_and_motion(source: ExportSource, tmp_path: Path) -> None:
    made = build_exporter(ExportFormat.MP4)(source, tmp_path / "object")
    assert not any("motion" in path.name for path in made.videos)
    place = replace(source, scene=replace(source.scene, backdrop=True))
    made = build_exporter(ExportFormat.MP4)(place, tmp_path / "place")
    names = {path.name for path in made.videos}
    assert {"test_0.mp4", "test_0_motion.mp4", "test_1_motion.mp4"} <= names
    reader = imageio_ffmpeg.read_frames(tmp_path / "place/video/test_0_motion.mp4")
    assert next(reader)["size"] == (4 * make.SIZE, make.SIZE)
    frames = [np.frombuffer(frame, np.uint8).reshape(make.SIZE, 4, make.SIZE, 3) for frame in reader]
    assert len(frames) == make.FRAMES
    motion = [frame[:, 3].astype(float) for frame in frames]
    assert np.ptp(motion[0], axis=-1).max() < 12  # grey: nothing has moved yet
    violet = motion[-1].mean((0, 1))  # it has risen
    assert violet[2] > violet[1] + 50
    assert violet[0] > violet[1] + 20
