import json
import struct
from dataclasses import replace

import gsply
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.formats.ply import write_ply, write_sequence
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.degrees import harmonics_count
from tests import make

COLUMNS = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), "opacity"]
COLUMNS += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]


def random_state(count: int, seed: int = 0) -> GaussianState:
    """Unit quaternions, as they come back; colours as rendered may leave [0, 1]."""
    state = make.random_gaussians(count, keypoints=5, seed=seed)
    quats = torch.nn.functional.normalize(state.quats, dim=-1)
    return replace(state, quats=quats, colors=state.colors * 1.4 - 0.2)


def test_the_bytes_are_the_layout_of_3dgs(tmp_path):
    one = make.gaussians(
        torch.tensor([[1.0, 2.0, 3.0]]),
        quats=[0.0, 0.0, 2.0, 0.0],
        scales=[1.0, np.e, np.e**2],
        opacities=0.5,
        colors=[0.5, 0.5 + 0.28209479177387814, 0.5 - 2 * 0.28209479177387814],
    )
    write_ply(tmp_path / "a.ply", one)
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    properties = [f"property float {name}" for name in COLUMNS]
    expected = ["ply", "format binary_little_endian 1.0", "element vertex 1", *properties, ""]
    assert header.decode().split("\n") == expected
    values = [1, 2, 3, 0, 0, 0, 0, 1, -2, 0, 0, 1, 2, 0, 0, 1, 0]  # unit quaternion: readers differ in normalising
    np.testing.assert_allclose(struct.unpack("<17f", body), values, atol=1e-6)


@given(count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_another_library_reads_the_same_values(tmp_path, count, seed):
    state = random_state(count, seed)
    write_ply(tmp_path / "a.ply", state)
    data = gsply.plyread(tmp_path / "a.ply")
    np.testing.assert_array_equal(data.means, state.means.numpy())
    np.testing.assert_allclose(np.exp(data.scales), state.scales.numpy(), rtol=1e-5)
    np.testing.assert_allclose(data.quats, state.quats.numpy(), atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-data.opacities)), state.opacities.numpy(), atol=1e-6)
    np.testing.assert_allclose(gsply.sh2rgb(data.sh0), state.colors.numpy(), atol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_are_one_colour_after_the_other(tmp_path, degree):
    count = harmonics_count(degree)
    harmonics = torch.arange(2.0 * count * 3).reshape(2, count, 3)  # [Gaussian, harmonic, colour]
    write_ply(tmp_path / "a.ply", replace(random_state(2), harmonics=harmonics if degree else None))
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property")]
    assert names == [*COLUMNS[:9], *(f"f_rest_{index}" for index in range(3 * count)), *COLUMNS[9:]]
    rows = np.frombuffer(body, "<f4").reshape(2, -1)
    assert rows[1, 9 : 9 + 3 * count].tolist() == harmonics[1].T.flatten().tolist()
    if degree > 0:
        np.testing.assert_array_equal(gsply.plyread(tmp_path / "a.ply").shN, harmonics.numpy())


def test_opacities_at_the_ends_stay_finite(tmp_path):
    ends = replace(random_state(2), opacities=torch.tensor([0.0, 1.0]))
    write_ply(tmp_path / "a.ply", ends)
    logits = torch.from_numpy(gsply.plyread(tmp_path / "a.ply").opacities)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.sigmoid(), ends.opacities, atol=2e-6, rtol=0)


def test_a_sequence_is_one_file_a_frame_and_an_index(tmp_path):
    states = [random_state(4, seed) for seed in range(3)]
    files = write_sequence(tmp_path / "new" / "folder", states, fps=8)
    assert [file.name for file in files] == ["frame_0000.ply", "frame_0001.ply", "frame_0002.ply"]
    np.testing.assert_array_equal(gsply.plyread(files[2]).means, states[2].means.numpy())
    index = json.loads((tmp_path / "new" / "folder" / "index.json").read_text())
    assert index["fps"] == 8
    assert index["frames"][1] == {"file": "frame_0001.ply", "seconds": 0.125}


def test_fps_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="fps must be positive"):
        write_sequence(tmp_path, [random_state(1)], fps=0)
