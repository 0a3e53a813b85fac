"""Videos as cameras and editors write them."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from kg4d.data.spans import Span
from kg4d.data.videos import read_clip

WIDTH, HEIGHT = 32, 24


def encode(path: Path, frames: np.ndarray, *words: str) -> Path:
    """Write RGBA frames, at 8 a second where `words` say nothing else."""
    begin = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgba"]
    given = ["-s", f"{WIDTH}x{HEIGHT}", "-r", "8", "-i", "-"]
    subprocess.run([*begin, *given, *words, str(path)], input=frames.tobytes(), check=True)
    return path


def numbered(count: int) -> np.ndarray:
    """Frames whose brightness is their number, five grey levels apart."""
    frames = np.full((count, HEIGHT, WIDTH, 4), 255, np.uint8)
    frames[..., :3] = 5 * np.arange(count, dtype=np.uint8)[:, None, None, None]
    return frames


def test_every_part_of_a_video_without_a_steady_rate_is_seen(tmp_path: Path) -> None:
    fast_then_slow = "settb=1/600,setpts='if(lt(N,40),N/30,40/30+(N-40)/5)/TB'"
    words = ["-vf", fast_then_slow, "-fps_mode", "vfr", "-enc_time_base", "1:600", "-crf", "1"]
    clip = read_clip(encode(tmp_path / "phone.mp4", numbered(50), *words, "-pix_fmt", "yuv444p"), Span(8))
    assert clip.source_frames == 50
    seen = clip.frames[:, 12, 16, 0] * 51
    assert seen.tolist() == pytest.approx([0, 7, 14, 21, 28, 35, 42, 49], abs=0.6)
    assert clip.fps == pytest.approx(50 / (40 / 30 + 10 / 5) * 7 / 49, rel=0.2)  # on average


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vp9.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"]),
        ("vp8.webm", ["-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0"]),
        ("prores.mov", ["-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"]),
        ("animation.mov", ["-c:v", "qtrle"]),
    ],
)
def test_the_alpha_channel_of_a_video_is_read(name: str, words: list[str], tmp_path: Path) -> None:
    frames = np.zeros((3, HEIGHT, WIDTH, 4), np.uint8)
    frames[:, 8:16, 8:24] = (200, 40, 40, 255)
    clip = read_clip(encode(tmp_path / name, frames, *words), Span(8))
    assert clip.has_alpha
    assert clip.opaque == []
    assert np.abs(clip.frames[..., 3].numpy() - frames[..., 3] / 255).mean() < 0.02
    assert np.abs(clip.frames[:, 12, 16].numpy() - frames[:, 12, 16] / 255).max() < 0.05


def test_a_webm_without_alpha_is_opaque(tmp_path: Path) -> None:
    clip = read_clip(encode(tmp_path / "plain.webm", numbered(3), "-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p"), Span(8))
    assert not clip.has_alpha
    assert clip.opaque == ["frame 0", "frame 1", "frame 2"]
