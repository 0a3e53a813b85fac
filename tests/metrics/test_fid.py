"""`test/fid`: whose features they are, that nothing else takes their place, and that they see damage."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from kg4d.metrics.feature_networks import Networks, load_networks
from kg4d.metrics.frechet import frechet_distance
from kg4d.metrics.protocols import GLTF4D, INCEPTION, VGG16_MEANS
from kg4d.metrics.suite import evaluate_grid
from kg4d.networks.lpips import LPIPS, Backbone, DeepMeans
from kg4d.networks.weights import WEIGHTS, content_hash

FID_ONLY = replace(GLTF4D, metrics=("test/fid",))
LPIPS_AND_FID = replace(GLTF4D, metrics=("test/lpips_vgg", "test/fid"))


class Colour(nn.Module):
    """Images to their mean colour."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def grids() -> tuple[Tensor, Tensor]:
    """Noise on two sides, (2, 3, 32, 32, 3)."""
    predicted, target = torch.rand(2, 2, 3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    return predicted, target


@pytest.fixture(scope="module")
def vgg() -> LPIPS:
    """VGG16 with random weights that keep the size of what they pass on."""
    torch.manual_seed(0)
    network = LPIPS(Backbone.VGG)
    for conv in network.convs:
        nn.init.kaiming_normal_(conv.weight)
    return network.eval().requires_grad_(False)


def test_the_features_are_those_of_the_last_relu_averaged(vgg: LPIPS) -> None:
    images = torch.rand(2, 3, 40, 36)
    means = DeepMeans(vgg)(images)
    layers, x = iter(vgg.convs), (2 * images - 1 - vgg.shift) / vgg.scale
    for block, convolutions in enumerate((2, 2, 3, 3, 3)):
        x = nn.functional.max_pool2d(x, 2) if block else x
        for _ in range(convolutions):
            x = next(layers)(x).relu()
    assert means.shape == (2, 512)
    assert torch.allclose(means, x.mean((2, 3)), rtol=1e-4, atol=1e-6)


def test_one_pass_serves_lpips_and_fid(vgg: LPIPS) -> None:
    networks, grid = Networks({"lpips-vgg": vgg, VGG16_MEANS: DeepMeans(vgg)}), grids()
    together = evaluate_grid(*grid, None, protocol=LPIPS_AND_FID, networks=networks)
    alone = evaluate_grid(*grid, None, protocol=FID_ONLY, networks=networks)
    assert together.metrics["test/fid"] == pytest.approx(alone.metrics["test/fid"], rel=1e-4)
    pred, true = ((side * 255).round().flatten(0, 1).movedim(-1, 1) / 255 for side in grid)
    features = DeepMeans(vgg)(pred), DeepMeans(vgg)(true)
    assert alone.metrics["test/fid"] == pytest.approx(frechet_distance(*features).item(), rel=1e-4)
    assert together.metrics["test/fid"] > 0


def test_the_weights_are_those_of_lpips_by_hash(vgg: LPIPS) -> None:
    assert Networks({VGG16_MEANS: DeepMeans(vgg)}).hashes[VGG16_MEANS] == content_hash(vgg.state_dict())


def test_the_protocol_says_that_it_is_not_inception(vgg: LPIPS) -> None:
    networks = Networks({VGG16_MEANS: DeepMeans(vgg)})
    evaluation = evaluate_grid(*grids(), None, protocol=FID_ONLY, networks=networks)
    assert FID_ONLY.networks["test/fid"] == VGG16_MEANS
    sample = evaluation.provenance["samples"]["test/fid"]
    assert (sample["images"], sample["network"]) == (6, VGG16_MEANS)
    assert "not Inception: compare only with values of this protocol; 6 samples in 512" in sample["warning"]


def test_a_given_network_goes_first_and_is_a_deviation(vgg: LPIPS) -> None:
    networks = Networks({VGG16_MEANS: DeepMeans(vgg), "lpips-vgg": vgg, "fid": Colour()})
    evaluation = evaluate_grid(*grids(), None, protocol=FID_ONLY, networks=networks)
    pred, true = ((side * 255).round().mean((2, 3)).flatten(0, 1) / 255 for side in grids())
    assert evaluation.metrics["test/fid"] == pytest.approx(frechet_distance(pred, true).item(), rel=1e-3)
    assert evaluation.provenance["samples"]["test/fid"] == {"images": 6, "network": "fid", "rank": 3, "warning": None}
    assert list(evaluation.provenance["networks"]) == ["fid"]
    assert any(f"instead of {VGG16_MEANS}" in line for line in evaluation.provenance["deviations"])


def test_a_protocol_that_asks_for_inception_gets_no_other_network(vgg: LPIPS) -> None:
    networks = Networks({VGG16_MEANS: DeepMeans(vgg), "lpips-vgg": vgg})
    protocol = replace(LPIPS_AND_FID, networks=LPIPS_AND_FID.networks | {"test/fid": INCEPTION})
    evaluation = evaluate_grid(*grids(), None, protocol=protocol, networks=networks)
    assert evaluation.skipped == {"test/fid": "no 'inception-v3' network was given to the evaluator"}


def test_missing_weights_skip_it_with_the_remedy(empty_cache: Path) -> None:
    evaluation = evaluate_grid(*grids(), None, protocol=FID_ONLY, networks=load_networks())
    assert evaluation.metrics == {}
    assert "pull lpips-vgg" in evaluation.skipped["test/fid"]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.usefixtures("trained_weights")
def test_equal_sets_are_at_zero_and_blur_moves_them_apart(data_root: Path) -> None:
    files = [data_root / "gltf4d" / "fox" / "test" / f"v{view}_{frame:03d}.png" for view in (0, 2) for frame in (0, 8)]
    rgba = torch.stack([torch.from_numpy(np.asarray(Image.open(file)) / np.float32(255)) for file in files])
    true = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).reshape(2, 2, 256, 256, 3)
    networks, distances = load_networks(), []
    for sigma in (0.0, 1.0, 2.0, 4.0):
        soft = torch.from_numpy(ndimage.gaussian_filter(true.numpy(), (0, 0, sigma, sigma, 0), mode="nearest"))
        evaluation = evaluate_grid(soft, true, None, protocol=FID_ONLY, networks=networks)
        distances.append(evaluation.metrics["test/fid"])
    assert distances[0] == pytest.approx(0, abs=1e-9 * distances[-1])
    assert all(better < worse for better, worse in pairwise(distances))
    assert evaluation.provenance["networks"] == {VGG16_MEANS: WEIGHTS["lpips-vgg"].content_sha256}
