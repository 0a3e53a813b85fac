"""Windows, positions and descriptors; VGG16 and DINOv2 with random weights, read by the code for the trained ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model

from kg4d.errors import InputError
from kg4d.networks.lpips import LPIPS, Backbone
from kg4d.priors.keypoints.features import (
    DinoFeatures,
    FeatureExtractor,
    VggFeatures,
    build_features,
    object_grid,
    object_window,
)
from kg4d.priors.keypoints.settings import FeaturesConfig, FeaturesKind
from tests.priors.textures import picture


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    save_file(LPIPS(Backbone.VGG).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "dinov2"
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["vgg", "dinov2"])
def extractor(request: pytest.FixtureRequest) -> FeatureExtractor:
    if request.param == "vgg":
        return VggFeatures(64, request.getfixturevalue("vgg_file"))
    return DinoFeatures(str(request.getfixturevalue("dino_folder")), 84)


def test_the_window_is_the_box_with_its_margin():
    image = torch.zeros(100, 120, 4)
    image[20:60, 40:60] = 1  # 20 wide, 40 high
    window = object_window(image, side=64, stride=16)
    assert (window.columns, window.rows) == (48, 64)  # (20 + 12) and 52 px, scaled by 64 / 52, to multiples of 16
    assert window.left + window.width / 2 == pytest.approx(50, abs=0.5)
    assert window.top + window.height / 2 == pytest.approx(40, abs=0.5)
    assert window.width / window.columns == pytest.approx(window.height / window.rows, rel=0.03)


def test_the_crop_is_on_white_and_goes_beyond_the_image():
    image = torch.zeros(40, 40, 4)
    image[0:30, 10:40] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    window = object_window(image, side=64, stride=16)
    crop = window.crop(image)[0]
    assert window.top < 0 < 40 < window.left + window.width
    assert torch.allclose(crop[:, 0, 0], torch.ones(3))
    assert torch.allclose(crop[:, crop.shape[1] // 2, crop.shape[2] // 2], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("count", [1, 10, 300])
def test_places_cover_the_matte(count: int):
    image = picture()
    positions = object_grid(image, object_window(image, 64, 16), count)
    assert 0.5 * count <= len(positions) <= 1.5 * count + 1
    assert (positions - 48).norm(dim=-1).max() < 32
    if count > 1:
        assert torch.cdist(torch.tensor([[48.0, 22.0], [74.0, 48.0]]), positions).amin(1).max() < 60 / count**0.5


def test_an_empty_matte_has_places_and_descriptors(extractor: FeatureExtractor):
    image = picture()
    image[..., 3] = 0
    found = extractor(image)
    positions = object_grid(image, found.window, 50)
    assert len(positions) > 20
    assert found.at(positions).isfinite().all()


def test_descriptors_move_with_the_object(extractor: FeatureExtractor):
    still, translation = picture(), torch.tensor([7.0, -4.0])
    points = torch.tensor([[40.0, 44.0], [52.2, 60.7]])
    original, moved = extractor(still).at(points), extractor(picture(translation=translation)).at(points + translation)
    assert torch.allclose(original.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert torch.allclose(original, moved, atol=1e-4)
    assert original[0] @ original[1] < original[0] @ moved[0] - 1e-3


def test_what_is_transparent_does_not_show(extractor: FeatureExtractor):
    clean, dirty = picture(), picture()
    dirty[..., :3] = torch.where(dirty[..., 3:] == 0, 0.123, dirty[..., :3])
    points = torch.tensor([[30.0, 40.0]])
    assert torch.equal(extractor(clean).at(points), extractor(dirty).at(points))


def test_points_outside_the_window_have_descriptors(extractor: FeatureExtractor):
    assert extractor(picture()).at(torch.tensor([[-50.0, 500.0]])).isfinite().all()


def test_maps_that_are_read_are_those_of_the_layers(vgg_file: Path):
    maps = VggFeatures(64, vgg_file)(picture()).maps
    assert [tuple(grid.shape) for grid in maps] == [(8, 8, 512)] * 3 + [(4, 4, 512)] * 3


def test_the_identity_tells_weights_and_sizes_apart(vgg_file: Path, tmp_path: Path):
    other = tmp_path / "other.safetensors"
    save_file({name: value + 1 for name, value in LPIPS(Backbone.VGG).state_dict().items()}, other)
    same, again = VggFeatures(64, vgg_file).identity(), VggFeatures(64, vgg_file).identity()
    assert same == again
    assert same != VggFeatures(80, vgg_file).identity()
    assert same["weights"] != VggFeatures(64, other).identity()["weights"]


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KG4D_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="weights pull lpips-vgg"):
        build_features(FeaturesConfig())


def test_a_model_that_cannot_be_had_names_what_helps():
    config = FeaturesConfig(kind=FeaturesKind.DINOV2, model="nobody/no-such-model")
    with pytest.raises(InputError) as caught:
        build_features(config)
    message = str(caught.value)
    assert "nobody/no-such-model" in message
    assert "features.model=<folder>" in message
    assert 'pip install "kg4d[priors]"' in message
    assert "\n" not in message


def test_a_damaged_folder_is_refused(dino_folder: Path, tmp_path: Path):
    (tmp_path / "config.json").write_bytes((dino_folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be had"):
        DinoFeatures(str(tmp_path))


def test_another_network_is_refused(tmp_path: Path):
    config = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is no DINOv2"):
        DinoFeatures(str(tmp_path))


def test_a_crop_too_small_is_refused():
    with pytest.raises(ValueError, match=r"features\.side"):
        FeaturesConfig(side=32)


def test_the_side_of_the_crop_is_the_one_asked_for_else_that_of_the_task(vgg_file: Path):
    left_open = FeaturesConfig(model=str(vgg_file))
    assert build_features(left_open).identity()["side"] == 336
    assert build_features(left_open, 448).identity()["side"] == 448
    assert build_features(FeaturesConfig(model=str(vgg_file), side=80), 448).identity()["side"] == 80
