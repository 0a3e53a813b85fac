"""Video by pipelines of diffusers: what is asked of them, and what is made of the answer."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kg4d.errors import InputError
from kg4d.priors.base import VideoSynthesizer
from kg4d.priors.diffusion.settings import VideoConfig
from kg4d.priors.diffusion.video import DiffusionVideo
from kg4d.priors.diffusion.views import on_white
from kg4d.priors.progress import listening
from tests.priors.tiny_models import SIZE

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # within diffusers

CPU = torch.device("cpu")
FRAMES = 3


@pytest.fixture(scope="module")
def picture() -> Tensor:
    image = torch.zeros(48, 48, 4)
    image[12:36, 12:36] = torch.tensor([0.9, 0.3, 0.1, 1.0])
    return image


def provider(folder: Path, **settings: Any) -> DiffusionVideo:
    return DiffusionVideo(VideoConfig(**{"model": str(folder), "size": SIZE, "steps": 2, **settings}), CPU)


def test_a_video_is_repeatable_and_begins_with_the_input(
    svd_folder: Path, picture: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    make, heard = provider(svd_folder), []
    assert isinstance(make, VideoSynthesizer)
    with listening(lambda *report: heard.append(report)), caplog.at_level(logging.INFO):
        video = make(picture, FRAMES)
    assert video.shape == (FRAMES, 48, 48, 3)
    assert video.min() >= 0
    assert video.max() <= 1
    assert torch.equal(video[0], on_white(picture))
    assert "the input takes its place" in caplog.text
    assert heard == [("steps", done, 2) for done in range(3)]
    assert (video[1] - video[2]).abs().max() > 1e-3
    assert torch.equal(provider(svd_folder)(picture, FRAMES), video)
    for changed in ({"seed": 1}, {"steps": 3}, {"motion": 1}, {"noise": 0.5}):
        other = provider(svd_folder, **changed)
        assert (other(picture, FRAMES)[1:] - video[1:]).abs().max() > 1e-5, changed
        assert other.identity() != make.identity()


def test_frames_are_decoded_in_chunks(svd_folder: Path, picture: Tensor) -> None:
    for chunk, sizes in ((2, [2, 1]), (1, [1, 1, 1])):
        make, decoded = provider(svd_folder, decode_chunk_size=chunk), []
        vae = make._pipeline.vae
        decode = vae.decode
        vae.decode = lambda latents, decode=decode, decoded=decoded, **rest: (
            decoded.append(len(latents)),
            decode(latents, **rest),
        )[1]
        make(picture, 3)
        assert decoded == sizes


def test_unsupported_attention_slices_are_logged(svd_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    _ = provider(svd_folder)._pipeline
    assert "slices" not in caplog.text
    _ = provider(svd_folder, attention_slicing=True)._pipeline
    assert "no part that can compute attention in slices" in caplog.text


@pytest.mark.parametrize(
    "settings", [{"size": 60}, {"size": 0}, {"frames": 1}, {"steps": 0}, {"fps": 0}, {"decode_chunk_size": 0}]
)
def test_sizes_that_cannot_be(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"video.{next(iter(settings))}: must be"):
        VideoConfig(**settings)


def test_a_model_whose_folder_wants_to_run_code_is_refused(zero123_folder: Path, picture: Tensor) -> None:
    with pytest.raises(InputError, match=r"video.model: the pipeline of .* cannot be used"):
        provider(zero123_folder)(picture, 2)


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no complete model_index.json"):
        provider(tmp_path)


class Answer:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


class Played:
    """In place of a pipeline: takes few arguments, and returns what it was given."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, image: Any, prompt: str, output_type: str) -> Answer:
        assert (prompt, output_type, image.size) == ("a cat", "np", (SIZE, SIZE))
        return self.answer


def played(folder: Path, pipeline: object) -> DiffusionVideo:
    made = provider(folder, prompt="a cat")
    made.__dict__["_pipeline"] = pipeline
    return made


def test_arguments_that_a_pipeline_does_not_know_are_left_out(svd_folder: Path, picture: Tensor) -> None:
    frames = torch.rand(1, 5, SIZE, SIZE, 3).numpy()
    video = played(svd_folder, Played(Answer(frames=frames)))(picture, 3)
    assert video.shape == (3, 48, 48, 3)


def test_answers_that_are_no_video(svd_folder: Path, picture: Tensor) -> None:
    short, broken = torch.rand(1, 2, SIZE, SIZE, 3).numpy(), torch.full((1, 3, SIZE, SIZE, 3), torch.nan).numpy()
    for pipeline, what in (
        (Played(Answer(frames=short)), "made 2 frames, not 3"),
        (Played(Answer(frames=broken)), "no numbers"),
        (Played(Answer(images=short)), "makes pictures"),
        (lambda prompt: None, "makes no video from an image"),
    ):
        with pytest.raises(InputError, match=what):
            played(svd_folder, pipeline)(picture, 3)
