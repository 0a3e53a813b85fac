import json
import struct

import gsply
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.errors import InputError
from kg4d.formats.ply import read_ply, write_ply, write_sequence
from kg4d.gaussians.state import GaussianState

COLUMNS = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), "opacity"]
COLUMNS += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]


def random_state(count: int, seed: int = 0) -> GaussianState:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    return GaussianState(
        means=uniform(count, 3) * 4 - 2,
        quats=torch.nn.functional.normalize(uniform(count, 4) - 0.5, dim=-1),
        scales=0.001 + 0.1 * uniform(count, 3),
        opacities=0.01 + 0.98 * uniform(count),
        colors=uniform(count, 3) * 1.4 - 0.2,  # colours as rendered may leave [0, 1]
        keypoint_logits=uniform(count, 5),
    )


@given(count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_reading_gives_back_what_was_written(tmp_path, count, seed):
    state = random_state(count, seed)
    write_ply(tmp_path / "a.ply", state)
    read = read_ply(tmp_path / "a.ply")
    for name in ("means", "quats", "scales", "opacities", "colors"):
        torch.testing.assert_close(getattr(read, name), getattr(state, name), atol=1e-6, rtol=1e-5)
    assert read.keypoint_logits.shape == (count, 0)


def test_the_bytes_are_the_layout_of_3dgs(tmp_path):
    one = GaussianState(
        means=torch.tensor([[1.0, 2.0, 3.0]]),
        quats=torch.tensor([[0.0, 0.0, 2.0, 0.0]]),
        scales=torch.tensor([[1.0, np.e, np.e**2]]),
        opacities=torch.tensor([0.5]),
        colors=torch.tensor([[0.5, 0.5 + 0.28209479177387814, 0.5 - 2 * 0.28209479177387814]]),
        keypoint_logits=torch.zeros(1, 0),
    )
    write_ply(tmp_path / "a.ply", one)
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    properties = [f"property float {name}" for name in COLUMNS]
    expected = ["ply", "format binary_little_endian 1.0", "element vertex 1", *properties, ""]
    assert header.decode().split("\n") == expected
    values = [1, 2, 3, 0, 0, 0, 0, 1, -2, 0, 0, 1, 2, 0, 0, 1, 0]  # unit quaternion: readers differ in normalising
    np.testing.assert_allclose(struct.unpack("<17f", body), values, atol=1e-6)


def test_another_library_reads_the_same_values(tmp_path):
    state = random_state(50)
    write_ply(tmp_path / "a.ply", state)
    data = gsply.plyread(tmp_path / "a.ply")
    np.testing.assert_array_equal(data.means, state.means.numpy())
    np.testing.assert_allclose(np.exp(data.scales), state.scales.numpy(), rtol=1e-5)
    np.testing.assert_allclose(data.quats, state.quats.numpy(), atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-data.opacities)), state.opacities.numpy(), atol=1e-6)
    np.testing.assert_allclose(gsply.sh2rgb(data.sh0), state.colors.numpy(), atol=1e-6)


def test_columns_may_come_in_any_order_and_among_others(tmp_path):
    names = [*reversed(COLUMNS), "f_rest_0"]
    values = {**dict.fromkeys(names, 0.0), "x": 1.5, "rot_0": 1.0, "f_rest_0": 9.0, "scale_2": 1.0}
    lines = ["ply", "format binary_little_endian 1.0", "comment made by hand", "element vertex 2"]
    lines += [f"property double {name}" for name in names] + ["property uchar flag", "element face 0"]
    lines += ["property list uchar int vertex_indices", "end_header", ""]
    row = struct.pack(f"<{len(names)}dB", *(values[name] for name in names), 7)
    (tmp_path / "a.ply").write_bytes("\n".join(lines).encode() + 2 * row)
    state = read_ply(tmp_path / "a.ply")
    assert len(state) == 2
    torch.testing.assert_close(state.means[1], torch.tensor([1.5, 0.0, 0.0]))
    torch.testing.assert_close(state.scales[1], torch.tensor([1.0, 1.0, np.e]))
    torch.testing.assert_close(state.colors[1], torch.full((3,), 0.5))


def test_opacities_at_the_ends_stay_finite(tmp_path):
    state = random_state(2)
    ends = GaussianState(**{**vars(state), "opacities": torch.tensor([0.0, 1.0])})
    write_ply(tmp_path / "a.ply", ends)
    torch.testing.assert_close(read_ply(tmp_path / "a.ply").opacities, ends.opacities, atol=2e-6, rtol=0)
    assert np.isfinite(gsply.plyread(tmp_path / "a.ply").opacities).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: None, "no such file"),
        (lambda whole: b"hello", "not a binary little endian PLY"),
        (lambda whole: whole.replace(b"little", b"big"), "not a binary little endian PLY"),
        (lambda whole: whole[:-1], "ends before its 3 Gaussians do"),
        (lambda whole: whole.replace(b"rot_3", b"other"), "has no column rot_3"),
        (lambda whole: whole.replace(b"float rot_3", b"short rot_3"), "not understood"),
        (lambda whole: whole.replace(b"vertex 3", b"vertex x"), "not understood"),
        (lambda whole: whole.replace(b"vertex", b"face"), "does not begin with vertices"),
    ],
)
def test_what_is_no_file_of_gaussians_is_refused(tmp_path, damage, message):
    write_ply(tmp_path / "good.ply", random_state(3))
    damaged = damage((tmp_path / "good.ply").read_bytes())
    if damaged is not None:
        (tmp_path / "bad.ply").write_bytes(damaged)
    with pytest.raises(InputError, match=message):
        read_ply(tmp_path / "bad.ply")


def test_a_sequence_is_one_file_a_frame_and_an_index(tmp_path):
    states = [random_state(4, seed) for seed in range(3)]
    files = write_sequence(tmp_path / "new" / "folder", states, fps=8)
    assert [file.name for file in files] == ["frame_0000.ply", "frame_0001.ply", "frame_0002.ply"]
    torch.testing.assert_close(read_ply(files[2]).means, states[2].means)
    index = json.loads((tmp_path / "new" / "folder" / "index.json").read_text())
    assert index["fps"] == 8
    assert index["frames"][1] == {"file": "frame_0001.ply", "seconds": 0.125}


def test_fps_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="fps must be positive"):
        write_sequence(tmp_path, [random_state(1)], fps=0)
