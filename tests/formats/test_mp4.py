import imageio_ffmpeg
import numpy as np
import pytest
import torch

from kg4d.formats.mp4 import contact_sheet, orbit_angles, render_orbit, side_by_side, write_mp4
from kg4d.formats.settings import Orbit
from kg4d.gaussians.pieces import Pieces
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.geometry.orbits import orbit


def read_mp4(path) -> tuple[dict, np.ndarray]:
    reader = imageio_ffmpeg.read_frames(path)
    meta = next(reader)
    width, height = meta["size"]
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def smooth_frames(count: int, height: int, width: int) -> torch.Tensor:
    t, y, x = torch.meshgrid(
        torch.linspace(0, 1, count), torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij"
    )
    return torch.stack([x, y, 0.5 + 0.5 * (t - x)], dim=-1)


def test_a_video_can_be_read_back(tmp_path):
    frames = smooth_frames(6, 48, 64)
    write_mp4(tmp_path / "new" / "a.mp4", frames, fps=12.5)
    meta, read = read_mp4(tmp_path / "new" / "a.mp4")
    assert meta["fps"] == 12.5
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["codec"] == "h264"
    assert read.shape == (6, 48, 64, 3)
    error = np.abs(read / 255 - frames.numpy())
    assert error.mean() < 0.01  # chroma is halved and colours go through YUV, so not exact
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]


def test_the_index_comes_first_so_that_browsers_can_start_at_once(tmp_path):
    write_mp4(tmp_path / "a.mp4", smooth_frames(3, 16, 16), fps=8)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_odd_sizes_repeat_their_last_row_and_column(tmp_path):
    frames = (smooth_frames(2, 31, 33) * 255).byte()
    write_mp4(tmp_path / "a.mp4", frames, fps=8)
    read = read_mp4(tmp_path / "a.mp4")[1]
    assert read.shape == (2, 32, 34, 3)
    assert np.abs(read[:, :31, :33].astype(int) - frames.numpy()).mean() < 5
    assert np.abs(read[:, 31, :33].astype(int) - frames[:, 30].numpy()).mean() < 6


def test_values_outside_the_range_are_clipped(tmp_path):
    write_mp4(tmp_path / "a.mp4", torch.full((2, 16, 16, 3), 1.5), fps=8)
    assert read_mp4(tmp_path / "a.mp4")[1].min() > 250


@pytest.mark.parametrize(("frames", "fps"), [(torch.zeros(0, 8, 8, 3), 8.0), (torch.zeros(1, 8, 8, 3), 0.0)])
def test_a_video_needs_frames_and_a_rate(tmp_path, frames, fps):
    with pytest.raises(ValueError, match="at least one frame and fps > 0"):
        write_mp4(tmp_path / "a.mp4", frames, fps)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"old")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "false")  # a program that only fails
    monkeypatch.setattr("imageio_ffmpeg._io.get_ffmpeg_exe", lambda: "false")
    with pytest.raises((RuntimeError, OSError)):
        write_mp4(tmp_path / "a.mp4", smooth_frames(2, 16, 16), fps=8)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.mp4", b"old")]


def test_side_by_side_shows_prediction_truth_and_error():
    prediction, truth = torch.full((2, 4, 5, 3), 0.25), torch.full((2, 4, 5, 3), 0.75)
    frames = side_by_side(prediction, truth)
    assert frames.shape == (2, 4, 15, 3)
    assert frames[0, 0, :, 0].tolist() == [0.25] * 5 + [0.75] * 5 + [0.5] * 5


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(5, 3, (2, 3)), (4, 2, (2, 2)), (2, 7, (1, 2)), (1, 1, (1, 1))]
)
def test_a_contact_sheet_holds_every_frame_at_its_place(count, columns, shape):
    frames = torch.arange(1.0, count + 1)[:, None, None, None].expand(count, 4, 6, 3) / 10
    sheet = contact_sheet(frames, columns, gap=2)
    rows, used = shape
    assert sheet.shape == (rows * 6 - 2, used * 8 - 2, 3)
    for index in range(rows * used):
        row, column = divmod(index, used)
        cell = sheet[row * 6 : row * 6 + 4, column * 8 : column * 8 + 6]
        expected = (index + 1) / 10 if index < count else 1.0
        torch.testing.assert_close(cell, torch.full_like(cell, expected))
    if rows > 1:
        assert (sheet[4:6] == 1).all()


@pytest.mark.parametrize(("count", "columns"), [(0, 2), (3, 0)])
def test_a_contact_sheet_needs_frames_and_columns(count, columns):
    with pytest.raises(ValueError, match="at least one frame and one column"):
        contact_sheet(torch.zeros(count, 4, 4, 3), columns)


class Painter:
    """A model that paints the time, and in one pixel where the camera stands."""

    renderer = background = None

    def states(self, times: torch.Tensor) -> list[GaussianState]:
        raise NotImplementedError

    def pieces(self) -> Pieces | None:
        return None

    def keypoints(self, times: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def depth(self, cameras: Cameras, times: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def flow(self, cameras: Cameras, times: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def render(self, cameras: Cameras, times: torch.Tensor) -> torch.Tensor:
        images = times[:, None, None, None].expand(-1, cameras.height, cameras.width, 3).clone()
        images[:, 0, 0] = cameras.centers
        return images


def test_an_orbit_loops_time_while_the_camera_goes_round():
    cameras, times = orbit([0.0, 90.0, 180.0, 270.0], [0.0] * 4, 0.9, 50.0, 8, 8), torch.tensor([0.2, 0.4, 0.6])
    frames = render_orbit(Painter(), times, cameras)
    assert frames.shape == (4, 8, 8, 3)
    torch.testing.assert_close(frames[:, 4, 4, 0], torch.tensor([0.2, 0.4, 0.6, 0.2]))
    torch.testing.assert_close(frames[:, 0, 0], cameras.centers.clamp(0, 1))
    with pytest.raises(ValueError, match="at least one time"):
        render_orbit(Painter(), times[:0], cameras)


def test_the_orbit_is_whole_where_views_show_the_sides_and_else_swings():
    whole, swing = orbit_angles(Orbit.AUTO, sides_seen=True), orbit_angles(Orbit.AUTO, sides_seen=False)
    torch.testing.assert_close(whole.diff(), torch.full((47,), 7.5))
    assert swing[0] == 0
    assert swing.max().item() == pytest.approx(30)
    assert swing.min().item() == pytest.approx(-30)
    assert torch.equal(orbit_angles(Orbit.FULL, sides_seen=False), whole)
    assert torch.equal(orbit_angles(Orbit.SWING, sides_seen=True), swing)
