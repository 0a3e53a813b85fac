import torch

from kg4d.losses.motion_priors import geman_mcclure


def test_the_robust_loss_is_a_square_for_small_errors_and_bounded_for_large_ones() -> None:
    squared = torch.tensor([1e-8, 1.0, 1e8])
    torch.testing.assert_close(geman_mcclure(squared, 2.0), torch.tensor([1e-8, 0.8, 4.0]), rtol=1e-5, atol=0)
