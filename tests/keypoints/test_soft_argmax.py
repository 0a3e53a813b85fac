import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.sampling import pixel_centers
from kg4d.keypoints.settings import KeypointReading
from kg4d.keypoints.soft_argmax import soft_argmax

SOFTMAX_READINGS = [reading for reading in KeypointReading if reading is not KeypointReading.MASS]


def random_map(seed: int, height: int = 6, width: int = 9) -> torch.Tensor:
    return torch.randn(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def blob(x: float, y: float, size: int = 128, sigma: float = 3.0) -> torch.Tensor:
    """A normal bump of height 1 on 0."""
    distance = (pixel_centers(size, size) - torch.tensor([x, y])).square().sum(-1)
    return (-distance / (2 * sigma**2)).exp()


@given(st.integers(0, 2**31), st.floats(0.05, 5.0))
def test_joint_reading_is_the_mean_under_the_softmax_over_all_pixels(seed: int, temperature: float) -> None:
    logits = random_map(seed)
    density = (logits / temperature).flatten().softmax(0)[:, None]
    centers = pixel_centers(6, 9).double().flatten(0, 1)
    mean = (density * centers).sum(0)
    std = (density * (centers - mean).square()).sum().sqrt()
    found = soft_argmax(logits, temperature=temperature)
    torch.testing.assert_close(found.pixels, mean)
    torch.testing.assert_close(found.std, std)


def test_gradient_of_the_joint_reading_is_the_centred_density() -> None:
    """dx / dM_p = pi_p (x_p - x) / temperature, alive for a flat map."""
    for logits in (random_map(0), torch.zeros(6, 9, dtype=torch.float64)):
        logits.requires_grad_()
        found = soft_argmax(logits, temperature=0.3).pixels
        (gradient,) = torch.autograd.grad(found[0], logits)
        density = (logits / 0.3).flatten().softmax(0).reshape(6, 9)
        x = pixel_centers(6, 9)[..., 0].double()
        torch.testing.assert_close(gradient, density * (x - found[0]) / 0.3)
        assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("reading", SOFTMAX_READINGS)
def test_adding_a_constant_changes_nothing(reading: KeypointReading) -> None:
    logits = random_map(1)
    shifted = soft_argmax(logits + 7.0, temperature=0.5, reading=reading)
    torch.testing.assert_close(shifted, soft_argmax(logits, temperature=0.5, reading=reading))


@pytest.mark.parametrize("reading", list(KeypointReading))
def test_moves_with_the_map_and_transposes_with_it(reading: KeypointReading) -> None:
    logits = torch.zeros(20, 30, dtype=torch.float64)
    logits[5:8, 6:9] = 1.0
    temperature = 0.003  # sharp enough for the flat background not to pull (LITERAL is always pulled)
    found = soft_argmax(logits, temperature=temperature, reading=reading).pixels
    transposed = soft_argmax(logits.mT, temperature=temperature, reading=reading).pixels
    torch.testing.assert_close(transposed, found.flip(-1))
    if reading is not KeypointReading.LITERAL:
        moved = soft_argmax(logits.roll((2, 3), dims=(0, 1)), temperature=temperature, reading=reading).pixels
        torch.testing.assert_close(found, torch.tensor([7.5, 6.5]).double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(moved - found, torch.tensor([3.0, 2.0]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("reading", "temperature", "error_px"),
    [
        (KeypointReading.JOINT, 1.0, 49.3),
        (KeypointReading.JOINT, 0.1, 5.2),
        (KeypointReading.JOINT, 0.05, 0.0),
        (KeypointReading.SEPARABLE, 1.0, 1.15),
        (KeypointReading.MAX, 1.0, 45.6),
        (KeypointReading.MAX, 0.1, 0.13),
        (KeypointReading.MEAN, 1.0, 49.3),
        (KeypointReading.MEAN, 0.02, 29.7),
        (KeypointReading.LITERAL, 1.0, 49.3),
        (KeypointReading.LITERAL, 0.02, 44.0),
        (KeypointReading.MASS, 1.0, 0.0),
    ],
)
def test_how_far_each_reading_misses_a_small_blob(
    reading: KeypointReading, temperature: float, error_px: float
) -> None:
    """A unit blob of 3 px at (100, 30) on a zero background of 128 x 128: why JOINT with a low temperature it is."""
    found = soft_argmax(blob(100.0, 30.0), temperature=temperature, reading=reading).pixels
    assert (found - torch.tensor([100.0, 30.0])).norm().item() == pytest.approx(error_px, abs=0.06)


@pytest.mark.parametrize("reading", list(KeypointReading))
def test_an_empty_map_reads_as_the_centre_and_says_so(reading: KeypointReading) -> None:
    logits = torch.zeros(8, 8, requires_grad=True)
    found = soft_argmax(logits, temperature=0.1, reading=reading)
    assert found.pixels.tolist() == pytest.approx([4.0, 4.0])
    assert found.entropy.item() == pytest.approx(1.0)
    assert found.std.item() == pytest.approx(math.sqrt(2 * (64 - 1) / 12))  # two uniform axes of 8 px
    found.pixels.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_confidence_tells_sharp_from_bimodal() -> None:
    sharp = soft_argmax(blob(100.5, 30.5), temperature=0.02)
    two = soft_argmax(torch.maximum(blob(100.5, 30.5), blob(40.5, 30.5)), temperature=0.02)
    assert two.pixels.tolist() == pytest.approx([70.5, 30.5], abs=0.1)  # where neither is
    assert two.std > 29
    assert sharp.std < 2
    assert sharp.entropy < two.entropy < 0.5


def test_a_delta_has_no_spread_and_finite_gradients() -> None:
    logits = torch.full((5, 5), -1e4)
    logits[1, 3] = 1e4
    logits.requires_grad_()
    found = soft_argmax(logits, temperature=0.01)
    found.pixels.sum().backward()
    assert found.pixels.tolist() == [3.5, 1.5]
    assert found.std < 1e-9
    assert found.entropy < 1e-9
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_mass_reading_is_the_centre_of_mass_and_ignores_negative_values() -> None:
    logits = torch.zeros(4, 4)
    logits[0, 0], logits[0, 2], logits[3, 3] = 1.0, 3.0, -5.0
    found = soft_argmax(logits, temperature=1.0, reading=KeypointReading.MASS).pixels
    assert found.tolist() == pytest.approx([2.0, 0.5])


@pytest.mark.parametrize("reading", list(KeypointReading))
def test_gradients(reading: KeypointReading) -> None:
    logits = (random_map(3, 4, 5).abs() + 0.1).reshape(1, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_argmax(x, temperature=0.7, reading=reading).pixels, (logits,))


def test_half_precision_is_reduced_in_single() -> None:
    logits = blob(100.0, 30.0)
    found = soft_argmax(logits.bfloat16(), temperature=0.02)
    assert found.pixels.dtype == torch.float32
    assert (found.pixels - torch.tensor([100.0, 30.0])).norm() < 1.0


def test_batches_and_one_pixel() -> None:
    assert soft_argmax(torch.zeros(2, 3, 4, 5), temperature=1.0).std.shape == (2, 3)
    alone = soft_argmax(torch.zeros(1, 1), temperature=1.0)
    assert (alone.pixels.tolist(), alone.entropy.item()) == ([0.5, 0.5], 0.0)


def test_errors() -> None:
    with pytest.raises(ValueError, match="temperature"):
        soft_argmax(torch.zeros(2, 2), temperature=0.0)
