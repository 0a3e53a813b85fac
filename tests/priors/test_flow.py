import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kg4d.data.images import resize_rgba
from kg4d.errors import InputError
from kg4d.geometry.sampling import pixel_centers
from kg4d.priors.flow import DisFlow, RaftFlow, confident
from kg4d.priors.settings import FlowConfig
from tests.priors.rafts import Raft
from tests.priors.textures import SIZE, picture, rotation

WARPS = {
    "still": (torch.eye(2), torch.zeros(2)),
    "translation": (torch.eye(2), torch.tensor([3.0, -2.0])),
    "half a pixel": (torch.eye(2), torch.tensor([0.5, 0.0])),
    "rotation": (rotation(6), torch.zeros(2)),
    "grow": (1.06 * torch.eye(2), torch.tensor([1.0, 1.0])),
}


@pytest.mark.parametrize("name", WARPS)
def test_a_known_warp_is_found(name: str) -> None:
    matrix, translation = WARPS[name]
    video = torch.stack([picture(), picture(matrix, translation)])
    found = DisFlow(FlowConfig())(video)
    centered = pixel_centers(SIZE, SIZE) - SIZE / 2
    truth = centered @ matrix.T + translation - centered
    core = video[0, ..., 3] > 0.9
    error = (found.flow[0] - truth).norm(dim=-1)
    assert error[core].mean() < 0.35
    sure = core & (found.weights[0] > 0.5)
    assert sure.sum() > 0.6 * core.sum()
    assert error[sure].mean() < 0.25


def test_confidence_is_in_range_and_zero_off_the_object() -> None:
    video = torch.stack(
        [picture(), picture(translation=torch.tensor([4.0, 0.0])), picture(translation=torch.tensor([8.0, 1.0]))]
    )
    found = DisFlow(FlowConfig())(video)
    assert found.flow.shape == (2, SIZE, SIZE, 2)
    assert found.flow.isfinite().all()
    assert ((found.weights >= 0) & (found.weights <= 1)).all()
    assert (found.weights[video[:-1, ..., 3] == 0] == 0).all()


def test_flow_depends_on_the_two_frames_alone() -> None:
    frames = [picture(translation=torch.tensor([2.0 * step, 0.0])) for step in range(3)]
    estimator = DisFlow(FlowConfig())
    together = estimator(torch.stack(frames))
    for pair in range(2):
        alone = estimator(torch.stack(frames[pair : pair + 2]))
        assert torch.equal(alone.flow[0], together.flow[pair])
        assert torch.equal(alone.weights[0], together.weights[pair])


@given(error=st.floats(0, 3), length=st.sampled_from([0.0, 10.0, 100.0]))
def test_confidence_is_the_agreement_on_the_way_back(error: float, length: float) -> None:
    size = 512
    forward = torch.zeros(1, 1, size, 2)
    forward[..., 0] = length
    backward = torch.zeros(1, 1, size, 2)
    backward[..., 0] = error - length
    weights = confident(forward, backward, torch.ones(2, 1, size), FlowConfig()).weights[0, 0]
    tolerance = max(1.0, 0.05 * length)
    inside = torch.arange(size) + 0.5 + length <= size
    expected = max(0.0, 1 - (error / tolerance) ** 2)
    torch.testing.assert_close(weights[inside], torch.full_like(weights[inside], expected), atol=1e-4, rtol=0)
    assert (weights[~inside] == 0).all()


def test_what_moves_off_the_object_is_not_believed() -> None:
    alphas = torch.ones(2, 4, 4)
    alphas[1, :, 2:] = 0
    weights = confident(torch.zeros(1, 4, 4, 2), torch.zeros(1, 4, 4, 2), alphas, FlowConfig()).weights
    assert weights[0, 0].tolist() == [1, 1, 0, 0]


def test_tiny_frames_are_no_trouble() -> None:
    small = resize_rgba(torch.stack([picture(), picture(translation=torch.tensor([6.0, 0.0]))]), 20, 16)
    found = DisFlow(FlowConfig())(small)
    assert found.flow.isfinite().all()


def test_the_identity_names_the_tolerances() -> None:
    assert DisFlow(FlowConfig()).identity() != DisFlow(FlowConfig(tolerance_px=2.0)).identity()


def brightening(frames: int, height: int, width: int) -> Tensor:
    shades = torch.linspace(0.2, 0.8, frames)[:, None, None, None].expand(frames, height, width, 3)
    return torch.cat([shades, torch.ones(frames, height, width, 1)], dim=-1)


def test_raft_sees_padded_images_and_its_last_flow_is_taken_in_both_directions(raft: Raft) -> None:
    found = RaftFlow(FlowConfig())(brightening(3, 130, 133))
    assert found.flow.shape == (2, 130, 133, 2)
    assert torch.equal(found.flow, torch.tensor([3.0, -2.0]).expand(2, 130, 133, 2))
    assert (found.weights[:, 2:, :-3] == 1).all(), "forward and backward flow agree exactly"
    assert (found.weights[:, :2] == 0).all(), "it leaves the image"
    assert [tuple(images.shape) for images in raft.seen] == [(2, 3, 136, 136)] * 2
    assert torch.allclose(raft.seen[0][:, 0, 0, 0], torch.tensor([51.0, 128.0]) / 127.5 - 1, atol=1 / 127)
    assert not raft.training


def test_raft_sees_small_images_enlarged(raft: Raft) -> None:
    found = RaftFlow(FlowConfig())(brightening(2, 64, 98))
    assert [tuple(images.shape) for images in raft.seen] == [(2, 3, 128, 200)]  # 196 wide, continued to whole cells
    torch.testing.assert_close(found.flow, torch.tensor([1.5, -1.0]).expand(1, 64, 98, 2))


def test_raft_says_what_it_cannot_do(raft: Raft) -> None:
    flow = RaftFlow(FlowConfig())
    sys.modules["torchvision.models.optical_flow"].Raft_Large_Weights.C_T_SKHT_V2 = "gone"
    with pytest.raises(InputError, match="weights cannot be fetched: no route to host .*flow.kind=dis"):
        flow(brightening(2, 128, 128))


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_raft_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"flow.kind.*torchvision.*kg4d\[raft\]"):
        RaftFlow(FlowConfig())


def test_torchvision_beside_another_torch_is_one_line(raft: Raft, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("torchvision"):
                raise RuntimeError("operator torchvision::nms does not exist\nand more")

    for name in ("torchvision", "torchvision.models", "torchvision.models.optical_flow"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(InputError, match=r"flow\.kind: torchvision does not load: operator .* exist") as caught:
        RaftFlow(FlowConfig())(brightening(2, 128, 128))
    assert "\n" not in str(caught.value)


def no_weights(file: Path) -> None:
    file.write_bytes(b"nothing")


def code(file: Path) -> None:
    torch.save({"a": Path("anything but a tensor")}, file)


def no_state(file: Path) -> None:
    torch.save([torch.ones(2)], file)


@pytest.mark.parametrize("damage", [no_weights, code, no_state])
def test_files_that_hold_no_weights_are_named(raft: Raft, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = tmp_path / "raft.pth"
    damage(file)
    with pytest.raises(InputError, match=r"raft\.pth: is no readable file of weights") as caught:
        RaftFlow(FlowConfig(path=str(file)))(brightening(2, 128, 128))
    assert "\n" not in str(caught.value)


def test_the_identity_tells_one_file_of_weights_from_another(raft: Raft, tmp_path: Path) -> None:
    files = [tmp_path / "a.pth", tmp_path / "b.pth", tmp_path / "c.pth"]
    for file, value in zip(files, (1, 2, 1), strict=True):
        file.write_bytes(bytes([value]))
    first, second, third = (RaftFlow(FlowConfig(path=str(file))).identity() for file in files)
    assert first != second
    assert first == third
    assert first != RaftFlow(FlowConfig()).identity()


def test_the_real_network_runs_with_weights_of_a_file(random_weights: Path) -> None:
    video = torch.stack([picture(), picture(translation=torch.tensor([3.0, -2.0])), picture()])
    estimator = RaftFlow(FlowConfig(path=str(random_weights)))
    found = estimator(video)
    assert found.flow.shape == (2, SIZE, SIZE, 2)
    assert found.flow.isfinite().all()
    assert not found.flow.requires_grad
    assert torch.equal(found.flow, estimator(video).flow)
    assert float((found.flow[0] - found.flow[1]).abs().max()) > 0


def test_the_real_network_refuses_weights_of_another(random_weights: Path, tmp_path: Path) -> None:
    state = torch.load(random_weights, weights_only=True)
    state.popitem()
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(InputError, match=r"less\.pth: does not hold RAFT's weights") as caught:
        RaftFlow(FlowConfig(path=str(tmp_path / "less.pth")))(brightening(2, 128, 128))
    assert "\n" not in str(caught.value)
