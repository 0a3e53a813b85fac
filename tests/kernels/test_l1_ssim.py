import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from kg4d import kernels
from kg4d.kernels.l1_ssim import l1_ssim


def torchmetrics_ssim(prediction: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    planes = (images.permute(0, 3, 1, 2) for images in (prediction, target))
    result = structural_similarity_index_measure(*planes, data_range=data_range)
    assert isinstance(result, Tensor)
    return result


def noisy_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=g)
    return (target + 0.3 * torch.randn(shape, generator=g)).clamp(0, 1), target


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("shape", [(2, 38, 45, 3), (1, 6, 6, 1), (1, 150, 17, 4), (3, 16, 16, 17)])
def test_values_and_gradient_equal_torchmetrics(shape: tuple[int, ...], isa: str) -> None:
    fastest = kernels.isa()
    try:
        kernels.use_isa(isa)
    except ValueError:
        pytest.skip(f"this machine has no {isa}")
    prediction, target = noisy_pair(shape)
    ours = prediction.clone().requires_grad_()
    found = l1_ssim(ours, target)
    (0.8 * found.l1 - 0.2 * found.ssim).backward()
    kernels.use_isa(fastest)
    theirs = prediction.double().requires_grad_()
    l1, ssim = (theirs - target).abs().mean(), torchmetrics_ssim(theirs, target.double())
    (0.8 * l1 - 0.2 * ssim).backward()
    assert float(found.l1.detach()) == pytest.approx(float(l1.detach()), abs=1e-6)
    assert float(found.ssim.detach()) == pytest.approx(float(ssim.detach()), abs=1e-6)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert float((ours.grad - theirs.grad).norm() / theirs.grad.norm()) < 1e-5


@given(st.integers(6, 40), st.integers(6, 24), st.integers(1, 4), st.floats(0.5, 255.0))
def test_any_size_and_range_equals_torchmetrics(height: int, width: int, channels: int, data_range: float) -> None:
    prediction, target = (images * data_range for images in noisy_pair((2, height, width, channels)))
    found = l1_ssim(prediction, target, data_range=data_range)
    expected = torchmetrics_ssim(prediction.double(), target.double(), data_range)
    assert float(found.ssim.detach()) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_images_smaller_than_the_window_have_finite_gradients(size: int) -> None:
    prediction, target = noisy_pair((1, size, size, 3))
    prediction.requires_grad_()
    found = l1_ssim(prediction, target)
    found.ssim.backward()
    assert prediction.grad is not None
    assert -1 <= float(found.ssim.detach()) <= 1
    assert torch.isfinite(prediction.grad).all()


def test_small_images_have_the_right_gradient() -> None:
    prediction, target = noisy_pair((1, 3, 4, 1))
    prediction.requires_grad_()
    l1_ssim(prediction, target).ssim.backward()
    assert prediction.grad is not None
    for at in ((0, 0, 0, 0), (0, 1, 2, 0), (0, 2, 3, 0)):
        step = torch.zeros_like(target)
        step[at] = 1e-2
        up, down = (float(l1_ssim(prediction.detach() + s, target).ssim) for s in (step, -step))
        assert float(prediction.grad[at]) == pytest.approx((up - down) / 2e-2, rel=0.02, abs=1e-3)


def test_equal_images_are_perfect() -> None:
    image = torch.rand(1, 20, 20, 3, requires_grad=True)
    found = l1_ssim(image, image.detach())
    found.ssim.backward()
    assert float(found.l1.detach()) == 0
    assert float(found.ssim.detach()) == pytest.approx(1, abs=1e-6)
    assert image.grad is not None
    assert image.grad.abs().max() < 1e-5


def test_channels_of_a_larger_image_are_read_in_place() -> None:
    wide = torch.rand(2, 30, 20, 7)
    target = torch.rand(2, 30, 20, 3)
    leaf = wide.clone().requires_grad_()
    found = l1_ssim(leaf[..., :3], target)
    (found.l1 + found.ssim).backward()
    dense = wide[..., :3].clone().requires_grad_()
    expected = l1_ssim(dense, target)
    (expected.l1 + expected.ssim).backward()
    assert float(found.ssim.detach()) == float(expected.ssim.detach())
    assert leaf.grad is not None
    assert dense.grad is not None
    assert torch.equal(leaf.grad[..., :3], dense.grad)
    transposed = l1_ssim(target.transpose(1, 2), target.transpose(1, 2))
    assert float(transposed.ssim) == pytest.approx(1, abs=1e-6)


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    prediction, target = noisy_pair((2, 200, 33, 3))
    results = []
    for threads in (1, 2, 3):
        leaf = prediction.clone().requires_grad_()
        found = l1_ssim(leaf, target, threads=threads)
        (found.l1 - found.ssim).backward()
        results.append((float(found.l1.detach()), float(found.ssim.detach()), leaf.grad))
    for l1, ssim, gradient in results[1:]:
        assert (l1, ssim) == results[0][:2]
        assert torch.equal(gradient, results[0][2])  # type: ignore[arg-type]


def test_wrong_inputs_are_refused() -> None:
    image = torch.rand(1, 8, 8, 3)
    with pytest.raises(ValueError, match="float32"):
        l1_ssim(image.double(), image)
    with pytest.raises(ValueError, match="data_range"):
        l1_ssim(image, image, data_range=0.0)
    with pytest.raises(ValueError, match="thread"):
        l1_ssim(image, image, threads=0)
    with pytest.raises(ValueError, match="one shape"):
        l1_ssim(image[:0], image[:0])
