"""LPIPS and I3D as structures: what must hold with any weights, and the conversion from flax trees."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from kg4d.metrics.perceptual import i3d_features, i3d_frames, lpips_distance
from kg4d.metrics.protocols import VideoInput
from kg4d.networks.i3d import BRANCHES, CONVOLUTIONS, I3D, INCEPTIONS, _pad_same, i3d_state
from kg4d.networks.lpips import LPIPS, Backbone, lpips_state


def random_lpips(net: Backbone) -> LPIPS:
    """Random convolutions and positive heads."""
    network = LPIPS(net)
    for head in network.heads:
        nn.init.uniform_(head)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("net", Backbone)
def test_lpips_is_a_symmetric_distance_a_pair(net: Backbone) -> None:
    network, (a, b) = random_lpips(net), torch.rand(2, 2, 3, 40, 36)
    distance = lpips_distance(network, a, b)
    assert (distance > 0).all()
    assert torch.allclose(lpips_distance(network, b, a), distance, rtol=1e-4)
    assert torch.allclose(lpips_distance(network, a[1:], b[1:]), distance[1:], rtol=1e-4)
    assert (lpips_distance(network, a, a).abs() < 1e-9).all()


def test_lpips_has_finite_gradients_where_features_vanish() -> None:
    network = random_lpips(Backbone.ALEX)
    for conv in network.convs:
        nn.init.zeros_(conv.bias)
    pred = (
        (network.shift / 2 + 0.5).expand(1, 3, 40, 40).clone().requires_grad_()
    )  # this colour is 0 inside the network
    lpips_distance(network, pred, torch.rand(1, 3, 40, 40)).sum().backward()
    assert pred.grad.isfinite().all()


def test_lpips_refuses_small_images() -> None:
    with pytest.raises(ValueError, match="at least 32 px, got 40 x 31"):
        lpips_distance(random_lpips(Backbone.ALEX), torch.zeros(1, 3, 31, 40), torch.zeros(1, 3, 31, 40))


@pytest.mark.parametrize(("net", "layers"), [(Backbone.ALEX, 5), (Backbone.VGG, 13)])
def test_lpips_state_fills_the_network_and_turns_the_kernels(net: Backbone, layers: int) -> None:
    state = LPIPS(net).state_dict()
    tree = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": state[f"heads.{i}"].numpy().reshape(1, 1, -1, 1)}} for i in range(5)
    }
    tree["Backbone"] = {
        f"Conv_{i}": {
            "kernel": state[f"convs.{i}.weight"].permute(2, 3, 1, 0).numpy(),
            "bias": state[f"convs.{i}.bias"].numpy(),
        }
        for i in range(layers)
    }
    converted = lpips_state(tree)
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[name], state[name]) for name in state)


def flax_unit(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[dict, dict]:
    """A convolution without bias and the batch normalisation after it."""
    width = shape[-1]
    kernel = (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
    params = {"Conv_0": {"kernel": kernel}, "BatchNorm_0": {"bias": rng.normal(size=width).astype(np.float32)}}
    mean, var = rng.normal(size=(1, 1, 1, 1, width)), rng.uniform(0.5, 2, (1, 1, 1, 1, width))
    return params, {"BatchNorm_0": {"mean": mean.astype(np.float32), "var": var.astype(np.float32)}}


def flax_tree() -> dict:
    """Random variables in the layout of the flax I3D."""
    rng, network = np.random.default_rng(0), I3D()
    params: dict = {"Logits/Conv3d_0c_1x1": {"Conv_0": {}}}
    statistics: dict = {}
    shapes = {
        name: weight.permute(2, 3, 4, 1, 0).shape for name, weight in network.named_parameters() if weight.ndim == 5
    }
    for name in CONVOLUTIONS:
        params[name], statistics[name] = flax_unit(rng, shapes[f"blocks.{name}.weight"])
    for name in INCEPTIONS:
        params[name], statistics[name] = {}, {}
        for theirs, ours in BRANCHES.items():
            unit = flax_unit(rng, shapes[f"blocks.{name}.{ours}.weight"])
            params[name][theirs], statistics[name][theirs] = unit
    logits = params["Logits/Conv3d_0c_1x1"]["Conv_0"]
    logits["kernel"] = rng.normal(size=shapes["logits.weight"]).astype(np.float32)
    logits["bias"] = rng.normal(size=400).astype(np.float32)
    return {"params": params, "batch_stats": statistics}


def test_i3d_state_fills_the_network_and_folds_the_normalisation() -> None:
    tree, network = flax_tree(), I3D()
    network.load_state_dict(i3d_state(tree))
    params, statistics = tree["params"]["Conv3d_2b_1x1"], tree["batch_stats"]["Conv3d_2b_1x1"]["BatchNorm_0"]
    x = torch.randn(2, 64, 3, 4, 4)
    kernel = torch.from_numpy(params["Conv_0"]["kernel"]).permute(4, 3, 0, 1, 2)
    mean, var = (torch.from_numpy(statistics[name].reshape(-1)) for name in ("mean", "var"))
    bias = torch.from_numpy(params["BatchNorm_0"]["bias"])
    expected = F.relu(F.batch_norm(F.conv3d(x, kernel), mean, var, None, bias, eps=1e-3))
    assert torch.allclose(network.blocks["Conv3d_2b_1x1"](x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [(224, 7, 2, 2, 3), (112, 3, 2, 0, 1), (16, 3, 1, 1, 1), (7, 2, 2, 0, 1), (8, 2, 2, 0, 0), (5, 1, 2, 0, 0)],
)
def test_same_padding_puts_the_odd_zero_last(size: int, kernel: int, stride: int, before: int, after: int) -> None:
    x = torch.ones(1, 1, 1, 1, size)
    padded = _pad_same(x, (1, 1, kernel), (1, 1, stride)).flatten()
    assert padded.tolist() == [0.0] * before + [1.0] * size + [0.0] * after


def test_i3d_takes_nine_frames_and_more() -> None:
    network = I3D().eval()
    with torch.no_grad():
        assert i3d_features(network, torch.rand(2, 9, 3, 224, 224)).shape == (2, 400)
    with pytest.raises(ValueError, match="at least 9 frames, got 8"):
        i3d_features(network, torch.rand(1, 8, 3, 224, 224))


def test_frames_are_cropped_or_resized_as_the_choice_says() -> None:
    images = torch.rand(2, 3, 256, 256)
    assert torch.equal(i3d_frames(images, VideoInput.CROP), 2 * images[..., 16:240, 16:240] - 1)
    bilinear, bicubic = (i3d_frames(images, choice) for choice in (VideoInput.RESIZE, VideoInput.BICUBIC))
    assert bilinear.shape == bicubic.shape == (2, 3, 224, 224)
    assert (bilinear - bicubic).abs().max() > 0.01
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    for choice in VideoInput:
        frames = i3d_frames(ramp, choice)
        assert frames.shape == (1, 3, 224, 224)
        assert (frames.diff(dim=-1) >= -1e-5).all()
    small = i3d_frames(images, VideoInput.RESIZE)
    assert torch.equal(i3d_frames((small + 1) / 2, VideoInput.RESIZE), 2 * ((small + 1) / 2) - 1)


def test_bicubic_input_is_that_of_pillow() -> None:
    image = torch.rand(1, 3, 300, 300)
    channels = [Image.fromarray(channel.numpy()).resize((224, 224), resample=Image.BICUBIC) for channel in image[0]]
    expected = torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))
    assert torch.allclose(i3d_frames(image, VideoInput.BICUBIC)[0], 2 * expected - 1, atol=1e-4)
