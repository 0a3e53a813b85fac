import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from kg4d import kernels
from kg4d.kernels.image_loss import ImageWeights, image_loss


def torchmetrics_ssim(prediction: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    planes = (images.permute(0, 3, 1, 2) for images in (prediction, target))
    result = structural_similarity_index_measure(*planes, data_range=data_range)
    assert isinstance(result, Tensor)
    return result


def noisy_pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=g)
    return (target + 0.3 * torch.randn(shape, generator=g)).clamp(0, 1), target


def ssim(prediction: Tensor, target: Tensor, data_range: float = 1.0) -> Tensor:
    return 1 - image_loss(prediction, target, weights=ImageWeights(0, 1), data_range=data_range)


def l1(prediction: Tensor, target: Tensor) -> float:
    return float(image_loss(prediction, target, weights=ImageWeights(1, 0)).detach())


SHAPES = [
    (2, 38, 45, 3),
    (1, 6, 6, 1),
    (1, 150, 17, 4),
    (3, 16, 16, 17),
    (1, 27, 130, 2),
    (1, 28, 131, 1),
    (1, 7, 90, 3),
]


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_torch(shape: tuple[int, ...], isa: str) -> None:
    fastest = kernels.isa()
    try:
        kernels.use_isa(isa)
    except ValueError:
        pytest.skip(f"this machine has no {isa}")
    prediction, target = noisy_pair(shape)
    alpha, target_alpha = noisy_pair((*shape[:3], 1), seed=1)
    ours, ours_alpha = prediction.clone().requires_grad_(), alpha.clone().requires_grad_()
    found = image_loss(ours, target, ours_alpha, target_alpha, weights=ImageWeights(0.8, 0.2, 0.5))
    (3 * found).backward()
    found_l1, found_ssim = l1(prediction, target), float(ssim(prediction, target))
    kernels.use_isa(fastest)
    theirs, theirs_alpha = prediction.double().requires_grad_(), alpha.double().requires_grad_()
    true_l1, true_ssim = (theirs - target).abs().mean(), torchmetrics_ssim(theirs, target.double())
    expected = 0.8 * true_l1 + 0.2 * (1 - true_ssim) + 0.5 * (theirs_alpha - target_alpha).abs().mean()
    (3 * expected).backward()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    assert found_l1 == pytest.approx(float(true_l1.detach()), abs=1e-6)
    assert found_ssim == pytest.approx(float(true_ssim.detach()), abs=1e-6)
    for mine, other in ((ours, theirs), (ours_alpha, theirs_alpha)):
        assert mine.grad is not None
        assert other.grad is not None
        assert float((mine.grad - other.grad).norm() / other.grad.norm()) < 1e-5


@given(st.integers(6, 40), st.integers(6, 100), st.integers(1, 4), st.floats(0.5, 255.0))
def test_any_size_and_range_equals_torchmetrics(height: int, width: int, channels: int, data_range: float) -> None:
    prediction, target = (images * data_range for images in noisy_pair((2, height, width, channels)))
    expected = torchmetrics_ssim(prediction.double(), target.double(), data_range)
    assert float(ssim(prediction, target, data_range)) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_images_smaller_than_the_window_have_finite_gradients(size: int) -> None:
    prediction, target = noisy_pair((1, size, size, 3))
    prediction.requires_grad_()
    found = ssim(prediction, target)
    found.backward()
    assert prediction.grad is not None
    assert -1 <= float(found.detach()) <= 1
    assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("shape", [(1, 3, 4, 1), (1, 1, 4, 1), (1, 4, 1, 2), (1, 13, 2, 1)])
def test_small_images_have_the_right_gradient(shape: tuple[int, ...]) -> None:
    prediction, target = noisy_pair(shape)
    prediction.requires_grad_()
    ssim(prediction, target).backward()
    assert prediction.grad is not None
    for index in range(target.numel()):
        step = torch.zeros_like(target)
        step.view(-1)[index] = 1e-2
        up, down = (float(ssim(prediction.detach() + s, target)) for s in (step, -step))
        assert float(prediction.grad.view(-1)[index]) == pytest.approx((up - down) / 2e-2, rel=0.02, abs=2e-3)


def test_equal_images_are_perfect() -> None:
    image = torch.rand(1, 20, 20, 3, requires_grad=True)
    found = ssim(image, image.detach())
    found.backward()
    assert l1(image, image.detach()) == 0
    assert float(found.detach()) == pytest.approx(1, abs=1e-6)
    assert image.grad is not None
    assert image.grad.abs().max() < 1e-5


def test_channels_of_a_larger_image_are_read_in_place() -> None:
    wide = torch.rand(2, 30, 20, 7)
    target = torch.rand(2, 30, 20, 3)
    leaf = wide.clone().requires_grad_()
    found = image_loss(leaf[..., :3], target, weights=ImageWeights(1, 1))
    found.backward()
    dense = wide[..., :3].clone().requires_grad_()
    expected = image_loss(dense, target, weights=ImageWeights(1, 1))
    expected.backward()
    assert float(found.detach()) == float(expected.detach())
    assert leaf.grad is not None
    assert dense.grad is not None
    assert torch.equal(leaf.grad[..., :3], dense.grad)
    assert float(ssim(target.transpose(1, 2), target.transpose(1, 2))) == pytest.approx(1, abs=1e-6)


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    prediction, target = noisy_pair((2, 200, 33, 3))
    alpha, target_alpha = noisy_pair((2, 200, 33, 1), seed=1)
    results = []
    for threads in (1, 2, 3):
        leaf, leaf_alpha = prediction.clone().requires_grad_(), alpha.clone().requires_grad_()
        weights = ImageWeights(1, 1, 1)
        loss = image_loss(leaf, target, leaf_alpha, target_alpha, weights=weights, threads=threads)
        loss.backward()
        results.append((float(loss.detach()), leaf.grad, leaf_alpha.grad))
    for loss, gradient, alpha_gradient in results[1:]:
        assert loss == results[0][0]
        assert torch.equal(gradient, results[0][1])  # type: ignore[arg-type]
        assert torch.equal(alpha_gradient, results[0][2])  # type: ignore[arg-type]


def test_a_second_backward_pass_adds_the_same_gradient() -> None:
    prediction, target = noisy_pair((1, 20, 20, 3))
    prediction.requires_grad_()
    loss = image_loss(prediction, target, weights=ImageWeights(1, 1))
    loss.backward(retain_graph=True)
    assert prediction.grad is not None
    once = prediction.grad.clone()
    loss.backward()
    assert torch.equal(prediction.grad, 2 * once)


def test_nan_stays_nan() -> None:
    prediction, target = noisy_pair((1, 40, 40, 3))
    prediction[0, 20, 20, 1] = torch.nan
    prediction.requires_grad_()
    loss = image_loss(prediction, target, weights=ImageWeights(1, 1))
    loss.backward()
    assert torch.isnan(loss.detach())
    assert prediction.grad is not None
    bad = torch.isnan(prediction.grad[0])
    assert bad[20, 20, 1]
    assert not bad[..., 0].any()  # the other channels, and what no window joins to it, are as they were
    assert not bad[:9].any()


def test_wrong_inputs_are_refused() -> None:
    image, matte, weights = torch.rand(1, 8, 8, 3), torch.rand(1, 8, 8, 1), ImageWeights(1, 1)
    with pytest.raises(ValueError, match="float32"):
        image_loss(image.double(), image, weights=weights)
    with pytest.raises(ValueError, match="data_range"):
        image_loss(image, image, weights=weights, data_range=0.0)
    with pytest.raises(ValueError, match="thread"):
        image_loss(image, image, weights=weights, threads=0)
    with pytest.raises(ValueError, match="one shape"):
        image_loss(image[:0], image[:0], weights=weights)
    with pytest.raises(ValueError, match="coverage"):
        image_loss(image, image, matte, weights=weights)
