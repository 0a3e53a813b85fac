from dataclasses import replace

import torch
from torch import Tensor

from kg4d.gaussians.moving import MovingGaussians
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras, project_each
from kg4d.keypoints.barycentre import assignment, barycentre
from kg4d.keypoints.settings import KeypointReading
from kg4d.losses.kfc import keypoint_loss, keypoint_visibility, read_heatmaps, render_heatmaps
from kg4d.losses.settings import KfcConfig
from kg4d.render.build import build_renderer
from tests import make


def test_each_set_of_points_is_seen_by_its_own_camera() -> None:
    cameras = make.cameras([0.0, 70.0, 200.0], [0.0, 10.0, -20.0], size=(64, 48))
    points = torch.randn(3, 5, 3) * 0.3
    expected = torch.stack([cameras[b].project(points[b]).pixels[0] for b in range(3)])
    assert torch.allclose(project_each(points, cameras), expected, atol=1e-4)


def test_the_loss_is_the_weighted_mean_in_image_units() -> None:
    target = torch.tensor([[[10.0, 10.0], [20.0, 30.0]]])
    predicted = target + torch.tensor([[[3.0, 4.0], [6.0, 8.0]]])
    weights = torch.tensor([[1.0, 3.0]])
    expected = (1 * 25 + 3 * 100) / 4 / 100**2
    assert torch.allclose(keypoint_loss(predicted, target, weights, 100.0), torch.tensor(expected))
    # twice the image, twice the error in px: the same loss
    doubled = keypoint_loss(2 * predicted, 2 * target, weights, 200.0)
    assert torch.allclose(doubled, torch.tensor(expected))


def test_keypoints_without_weight_may_be_nan_and_get_no_gradient() -> None:
    target = torch.tensor([[[torch.nan, torch.nan], [1.0, 2.0]]])
    predicted = torch.tensor([[[5.0, 5.0], [2.0, 2.0]]], requires_grad=True)
    loss = keypoint_loss(predicted, target, torch.tensor([[0.0, 1.0]]), 10.0)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad[0, 0].abs().sum() == 0
    assert predicted.grad[0, 1, 0] > 0
    assert keypoint_loss(predicted, target, torch.zeros(1, 2), 10.0) == 0


def keypoints_of(state: GaussianState, cameras: Cameras, config: KfcConfig) -> Tensor:
    renderer = build_renderer("reference")
    heatmaps = render_heatmaps(
        lambda views, features: renderer(state, views, features=features), state.keypoint_logits, cameras, config
    )
    return read_heatmaps(heatmaps, cameras, config)


def test_heatmaps_find_the_gaussian_that_claims_the_keypoint() -> None:
    cameras = make.cameras([0.0, 40.0], size=96)
    state = make.blobs()
    pixels = keypoints_of(state, cameras, KfcConfig(heatmap_scale=0.5))
    truth = cameras.project(state.means).pixels
    assert (pixels - truth).norm(dim=-1).max() < 1.0


def test_heatmaps_train_features_and_centres() -> None:
    cameras = make.cameras(size=48)
    state = make.blobs()
    for tensor in (state.means, state.keypoint_logits):
        tensor.requires_grad_()
    pixels = keypoints_of(state, cameras, KfcConfig(heatmap_scale=1.0))
    keypoint_loss(pixels, pixels.detach() + 3, torch.ones(1, 2), 48.0).backward()
    assert state.means.grad is not None
    assert state.keypoint_logits.grad is not None
    assert state.means.grad[:, 0].min() < 0  # the keypoints shall move to the right, and with them the Gaussians
    assert state.keypoint_logits.grad.abs().sum() > 0


def test_a_one_hot_barycentre_is_its_gaussian() -> None:
    state = make.blobs()
    share = assignment(state.keypoint_logits, 0.1)
    assert torch.allclose(barycentre(share, state.means), state.means, atol=1e-6)


def test_densities_find_it_too_and_train_from_seeds_below_zero() -> None:
    """Seeds are logits <= 0; as a density they are softplus(P / temperature), which none of them leaves at 0."""
    cameras, config = make.cameras(size=96), KfcConfig(heatmap_scale=0.5, reading=KeypointReading.MASS)
    state = make.blobs()
    state = replace(state, keypoint_logits=(state.keypoint_logits - 2.0).requires_grad_())
    pixels = keypoints_of(state, cameras, config)
    assert (pixels - cameras.project(state.means).pixels).norm(dim=-1).max() < 1.0
    pixels[0, 0, 0].backward()
    assert state.keypoint_logits.grad is not None
    assert state.keypoint_logits.grad[1, 0] > 0  # more of the Gaussian on the right moves the keypoint there


def test_a_camera_sees_the_keypoints_that_the_surface_does_not_hide() -> None:
    """From the front the first Gaussian hides a point behind it; from the side it does not."""
    cameras = make.cameras([0.0, 90.0], size=64)
    state, renderer = make.blobs(1), build_renderer("reference")
    output = renderer(state, cameras, depth=True)
    behind = cameras.centers[0] + 1.2 * (state.means - cameras.centers[0])
    points = torch.cat([state.means, behind]).expand(2, -1, -1)
    config = KfcConfig(visibility_tolerance=0.1)
    assert keypoint_visibility(points, cameras, output, config).tolist() == [[1.0, 0.0], [1.0, 1.0]]
    apart = renderer.frames(MovingGaussians.still(state, 2), cameras, depth=True)
    assert keypoint_visibility(points, cameras, apart, config).tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_free_features_satisfy_the_loss_with_frozen_geometry() -> None:
    """Why P needs seeds, compactness or freezing: it alone brings the loss to zero, for any target inside the object.

    What is left for the geometry then is no gradient.
    """
    cameras, g = make.cameras([0.0, 60.0], size=64), torch.Generator().manual_seed(0)
    means = (torch.rand(200, 3, generator=g) - 0.5).requires_grad_()
    logits = torch.zeros(200, 1, requires_grad=True)
    wrong = cameras.project(torch.tensor([[0.25, -0.2, 0.1]])).pixels  # not where the keypoint is
    optimizer = torch.optim.Adam([logits], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        points = barycentre(assignment(logits, 0.1), means).expand(2, -1, -1)
        loss = keypoint_loss(project_each(points, cameras), wrong, torch.ones(2, 1), 64.0)
        (first,) = torch.autograd.grad(loss, means, retain_graph=True)
        loss.backward()
        if optimizer.state == {}:
            at_start = first.norm()
        optimizer.step()
    assert loss.sqrt() * 64 < 0.1  # px
    assert first.norm() < 0.02 * at_start
