import torch
from hypothesis import given
from hypothesis import strategies as st

from kg4d.geometry.sampling import pixel_centers, sample_image


def test_sampling_the_centres_is_the_identity() -> None:
    image = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample_image(image, pixel_centers(5, 7)), image, atol=1e-5, rtol=0)


def test_centres_are_x_first_and_at_halves() -> None:
    centers = pixel_centers(3, 5)
    assert centers.shape == (3, 5, 2)
    assert centers[2, 4].tolist() == [4.5, 2.5]


@given(st.floats(0.5, 8.5), st.floats(0.5, 5.5))
def test_exact_on_bilinear_images(x: float, y: float) -> None:
    cx, cy = pixel_centers(6, 9).double().unbind(-1)
    image = (1 + 2 * cx - 3 * cy + 0.5 * cx * cy)[..., None]
    found = sample_image(image, torch.tensor([x, y], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([1 + 2 * x - 3 * y + 0.5 * x * y], dtype=torch.float64))


def test_outside_is_the_nearest_border() -> None:
    image = torch.arange(12.0).reshape(3, 4, 1)
    points = torch.tensor([[-5.0, -5.0], [0.0, 0.0], [9.0, 0.5], [4.0, 3.0], [1.5, 99.0]])
    torch.testing.assert_close(sample_image(image, points)[:, 0], torch.tensor([0.0, 0.0, 3.0, 11.0, 9.0]))


def test_gradients_and_leading_axes() -> None:
    g = torch.Generator().manual_seed(0)
    image = torch.rand(4, 5, 2, dtype=torch.float64, generator=g, requires_grad=True)
    pixels = (torch.rand(2, 3, 2, dtype=torch.float64, generator=g) * 3 + 0.7).requires_grad_()
    assert sample_image(image, pixels).shape == (2, 3, 2)
    assert torch.autograd.gradcheck(sample_image, (image, pixels))


def test_one_point_and_no_point() -> None:
    image = torch.ones(2, 2, 3)
    assert sample_image(image, torch.tensor([1.0, 1.0])).tolist() == [1.0, 1.0, 1.0]
    assert sample_image(image, torch.zeros(0, 2)).shape == (0, 3)
