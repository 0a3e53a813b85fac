import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kg4d.data.images import quantize, read_image, resize_rgba, write_png
from kg4d.errors import InputError


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(values: np.ndarray, color_type: int) -> bytes:
    """Values (H, W, channels) as 16-bit samples: type 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(mode: str, kind: str = "PNG", **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert("RGB").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


def test_what_was_written_is_read_back(tmp_path: Path):
    image = torch.randint(0, 256, (5, 7, 4)) / 255
    write_png(tmp_path / "a.png", image)
    assert torch.equal(read_image(tmp_path / "a.png"), image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_rgb_is_opaque(tmp_path: Path):
    write_png(tmp_path / "a.png", torch.full((2, 3, 3), 0.2))
    image = read_image(tmp_path / "a.png")
    assert image.shape == (2, 3, 4)
    assert (image[..., 3] == 1).all()
    assert torch.allclose(image[..., :3], torch.tensor(0.2))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats_are_read(tmp_path: Path, kind: str):
    path = tmp_path / "photo"
    Image.new("RGB", (6, 4), (200, 100, 50)).save(path, kind, quality=100)
    image = read_image(path)
    assert image.shape == (4, 6, 4)
    assert torch.allclose(image[..., :3] * 255, torch.tensor([200.0, 100.0, 50.0]), atol=3)


def test_the_orientation_of_a_photo_is_applied(tmp_path: Path):
    picture = Image.new("RGB", (6, 4), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    picture.save(tmp_path / "photo.jpg", exif=exif)
    assert read_image(tmp_path / "photo.jpg").shape == (6, 4, 4)


@pytest.mark.parametrize(
    ("color_type", "channels"), [(0, [0, 0, 0]), (2, [0, 1, 2]), (4, [0, 0, 0, 1]), (6, [0, 1, 2, 3])]
)
def test_16_bits_become_8(color_type: int, channels: list[int], tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, max(channels) + 1))
    (tmp_path / "deep.png").write_bytes(png_of_16_bits(values, color_type))
    image = read_image(tmp_path / "deep.png").numpy()
    assert np.abs(image[..., : len(channels)] - values[..., channels] / 65535).max() < 1.01 / 255
    if len(channels) == 3:
        assert (image[..., 3] == 1).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1"])
def test_grey_and_palette_become_rgb(mode: str, tmp_path: Path):
    (tmp_path / "odd.png").write_bytes(encoded(mode))
    with Image.open(tmp_path / "odd.png") as image:
        assert image.mode == mode
        expected = np.array(image.convert("RGBA")) / 255
    assert np.abs(read_image(tmp_path / "odd.png").numpy() - expected).max() < 1e-6
    assert expected[..., :3].std() > 0.1


def test_a_transparent_colour_of_a_palette_is_transparent(tmp_path: Path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 255, 255, 200, 0, 0])
    picture.paste(1, (0, 0, 2, 4))
    picture.save(tmp_path / "palette.png", transparency=0)
    image = read_image(tmp_path / "palette.png")
    assert image[0, 0].tolist() == pytest.approx([200 / 255, 0, 0, 1])
    assert image[0, 3, 3] == 0


BAD = {
    "CMYK": (encoded("CMYK", "JPEG"), "CMYK"),
    "animation": (animation(), "animation"),
    "truncated PNG": (encoded("RGB")[:-300], "damaged"),
    "truncated JPEG": (encoded("RGB", "JPEG")[:-100], "damaged"),
    "truncated WebP": (encoded("RGB", "WEBP")[:-60], "damaged"),
    "flipped bytes": (encoded("RGB")[:60] + bytes(40) + encoded("RGB")[100:], "damaged"),
    "GIF": (encoded("P", "GIF"), "of another format"),
    "text": (b"no image at all", "damaged"),
    "nothing": (b"", "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_unsuitable_files_are_one_clear_line(tmp_path: Path, name: str):
    data, words = BAD[name]
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message
    assert message.endswith(")")


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_what_is_no_file_is_named(tmp_path: Path, name: str):
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / name)


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    with pytest.raises(TypeError, match="channels|Cannot handle"):
        write_png(tmp_path / "a.png", torch.zeros(4, 4, 7))
    assert list(tmp_path.iterdir()) == []


def test_quantize_clips_and_rounds():
    values = torch.tensor([-0.5, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 3.0])
    assert quantize(values).tolist() == [0, 0, 0, 1, 255, 255]


def test_the_colour_of_transparent_pixels_never_shows():
    images = torch.zeros(1, 16, 16, 4)
    images[..., 0] = 1.0  # red everywhere, but only the left half is covered
    images[..., 1] = (torch.arange(16) >= 8).float()  # what is transparent would be yellow
    images[..., 3] = (torch.arange(16) < 8).float()
    small = resize_rgba(images, 5, 5)
    covered = small[..., 3] > 0
    assert covered.any()
    assert not covered.all()
    assert torch.allclose(small[covered][:, 1], torch.tensor(0.0), atol=1e-6)
    assert torch.allclose(small[covered][:, 0], torch.tensor(1.0), atol=1e-6)


@given(st.integers(3, 40), st.integers(0, 10))
def test_resampling_keeps_a_constant_and_the_range(size: int, seed: int):
    images = torch.rand(1, 12, 12, 4, generator=torch.Generator().manual_seed(seed))
    images[..., 0] = 0.3
    resized = resize_rgba(images, size, size)
    assert resized.shape == (1, size, size, 4)
    assert torch.allclose(resized[..., 0], torch.tensor(0.3), atol=1e-5)
    assert resized[..., 3].min() >= images[..., 3].min() - 1e-6
    assert resized[..., 3].max() <= images[..., 3].max() + 1e-6


def test_shrinking_sees_every_pixel():
    """Without antialiasing, a pattern of single pixels would turn all black or all white."""
    checkers = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float()
    images = torch.cat([checkers[None, ..., None].expand(1, 64, 64, 3), torch.ones(1, 64, 64, 1)], dim=-1)
    small = resize_rgba(images, 8, 8)[..., :3]
    assert torch.allclose(small, torch.tensor(0.5), atol=0.02)
