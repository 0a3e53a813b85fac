"""Views of an object from one image, by diffusion: Zero-1-to-3 for arbitrary cameras, Zero123++ for six fixed ones.

Sources: Liu et al. 2023, "Zero-1-to-3"; Shi et al. 2023, "Zero123++".
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kg4d.data.images import quantize, resample
from kg4d.errors import InputError
from kg4d.priors.base import Identity, Matting, ViewSynthesizer
from kg4d.priors.diffusion.checkpoint import find_checkpoint
from kg4d.priors.diffusion.settings import ViewsConfig, ViewsKind, Zero123Kind
from kg4d.priors.diffusion.zero123 import COMPONENTS, Condition, Zero123, find_zero123
from kg4d.priors.progress import counted

_KEY = "views.model"


class Zero123Views:
    """`ViewSynthesizer` by Zero-1-to-3: each view is sampled from the same noise, all of them in one batch.

    Args:
        config: The settings; their `kind` is one of the kinds of Zero-1-to-3.
        device: Where the networks run.

    Raises:
        InputError: The model is not available.
    """

    fov_y = None

    def __init__(self, config: ViewsConfig, device: torch.device) -> None:
        kind = Zero123Kind(config.kind.value)
        self.config = config
        self.name = f"views-{kind.value}"
        self.checkpoint = find_zero123(_KEY, kind, config.model, local_files_only=config.local_files_only)
        self.network = Zero123(kind, self.checkpoint, device, config.reference_elevation, config.attention_slicing)

    def identity(self) -> Identity:
        """Weights, settings of the sampler, and precision."""
        return {
            "model": self.checkpoint.model,
            "weights": self.checkpoint.fingerprint(COMPONENTS),
            "half": self.network.dtype == torch.float16,
            "reference_elevation": self.config.reference_elevation,
            **self.config.sampling._asdict(),
            "seed": self.config.seed,
        }

    @torch.no_grad()
    def __call__(
        self, image: Float[Tensor, "H W 4"], azimuths: Sequence[float], elevations: Sequence[float]
    ) -> Float[Tensor, "R H W 3"]:
        """Generate views on white; see `ViewSynthesizer`."""
        height, width = image.shape[:2]
        condition = self.network.condition(on_white(image)[None])
        if not azimuths:
            return image.new_zeros(0, height, width, 3)
        latents = self._sample(condition, azimuths, elevations)
        views = [self.network.decode(latents[view : view + 1]) for view in range(len(latents))]
        return resample(torch.cat(views).cpu(), width, height)

    def _sample(
        self, condition: Condition, azimuths: Sequence[float], elevations: Sequence[float]
    ) -> Float[Tensor, "R C h w"]:
        network, generator = self.network, torch.Generator().manual_seed(self.config.seed)
        scheduler, (steps, scale) = network.scheduler, self.config.sampling
        scheduler.set_timesteps(steps)

        def noise_for_all() -> Tensor:  # the same for each, so that no view depends on which others are asked for
            drawn = torch.randn(condition.latents.shape, generator=generator).to(network.device)
            return drawn.expand(len(azimuths), -1, -1, -1)

        latents: Tensor = noise_for_all() * scheduler.init_noise_sigma
        for step in counted(scheduler.timesteps.tolist(), steps, "steps"):
            noise = network.predict(latents, step, condition, azimuths, elevations, scale)
            latents = scheduler.step(noise, step, latents, eta=1.0, variance_noise=noise_for_all()).prev_sample
        return latents


class Zero123PlusViews:
    """`ViewSynthesizer` by Zero123++, which generates six views at once, from fixed cameras, on grey.

    Its pipeline is its authors' code. It is run from the copy that `views.pipeline` names; downloaded code is never
    run. Version 1.2 has a field of view of 30 degrees, whatever the field of view of the input.

    Args:
        config: The settings; their `kind` is `zero123plus`.
        device: Where the networks run.
        matting: Separates the object from the grey background.

    Raises:
        InputError: The model or the pipeline is not available.
    """

    AZIMUTHS = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
    ELEVATIONS = (20.0, -10.0, 20.0, -10.0, 20.0, -10.0)  # above the horizon, not above the input view
    MODEL = "sudo-ai/zero123plus-v1.2"
    ROWS, COLUMNS = 3, 2
    fov_y = 30.0
    name = "views-zero123plus"

    def __init__(self, config: ViewsConfig, device: torch.device, matting: Matting) -> None:
        self.config = config
        self.device = device
        self.matting = matting
        if config.pipeline is None:
            remedy = "read pipeline.py of sudo-ai/zero123plus-pipeline, and give your copy with views.pipeline=<file>"
            raise InputError("views.pipeline", "zero123plus is run by code of its authors", remedy)
        self.code = Path(config.pipeline).expanduser()
        if not self.code.is_file():
            raise InputError("views.pipeline", f"no file {self.code}", "give your copy of the authors' pipeline.py")
        model = config.model or self.MODEL
        if model.endswith("zero123plus-v1.1"):
            raise InputError(_KEY, f"{model} draws from other cameras", f"give {self.MODEL}")
        self.checkpoint = find_checkpoint(_KEY, model, (), local_files_only=config.local_files_only)

    def identity(self) -> Identity:
        """Weights, code, settings of the sampler, precision and matting."""
        matting = {f"matting_{key}": value for key, value in self.matting.identity().items()}
        return {
            "model": self.checkpoint.model,
            "weights": self.checkpoint.fingerprint(),
            "code": hashlib.sha256(self.code.read_bytes()).hexdigest()[:16],
            "half": self.device.type == "cuda",
            **self.config.sampling._asdict(),
            "seed": self.config.seed,
            "fov_y": self.fov_y,
            "matting": self.matting.name,
            **matting,
        }

    def __call__(
        self, image: Float[Tensor, "H W 4"], azimuths: Sequence[float], elevations: Sequence[float]
    ) -> Float[Tensor, "R H W 3"]:
        """Generate the six views, and return the requested ones, on white; see `ViewSynthesizer`.

        Raises:
            InputError: A requested view is not one of the six.
        """
        own = list(zip(self.AZIMUTHS, self.ELEVATIONS, strict=True))
        horizon = self.config.reference_elevation
        asked = [(round(a, 3) % 360, round(e + horizon, 3)) for a, e in zip(azimuths, elevations, strict=True)]
        if not set(asked) <= set(own):
            remedy = f"ask for some of {', '.join(f'{a:g}/{e:g}' for a, e in own)}"
            raise InputError("views.azimuths", "zero123plus has six views of its own", remedy)
        grid = self._sample(image)
        height, width = grid.shape[0] // self.ROWS, grid.shape[1] // self.COLUMNS
        tiles = grid.reshape(self.ROWS, height, self.COLUMNS, width, 3).movedim(2, 1).flatten(0, 1)
        tiles = resample(tiles, image.shape[1], image.shape[0])
        views = [self._on_white(tiles[own.index(camera)]) for camera in counted(asked, len(asked), "views")]
        return torch.stack(views)

    def _on_white(self, view: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
        return on_white(torch.cat([view, self.matting(view[None])[0]], dim=-1))

    @torch.no_grad()
    def _sample(self, image: Float[Tensor, "H W 4"]) -> Float[Tensor, "rows columns 3"]:
        picture = Image.fromarray(quantize(image).numpy())
        with torch.random.fork_rng():  # the pipeline draws from the global generator too
            torch.manual_seed(self.config.seed)
            result = self._pipeline(
                picture,
                num_inference_steps=self.config.sampling.steps,
                guidance_scale=self.config.sampling.scale,
                generator=torch.Generator().manual_seed(self.config.seed),
                output_type="pt",
            )
        made: Tensor = result.images[0].float().cpu()
        return made.movedim(0, -1)

    @cached_property
    def _pipeline(self) -> Any:
        from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler

        spec = importlib.util.spec_from_file_location("zero123plus_pipeline", self.code)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (ImportError, SyntaxError) as error:
            raise InputError(
                "views.pipeline", f"{self.code} cannot be run: {error}", "install what it needs"
            ) from error
        classes = [
            kind
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, DiffusionPipeline) and kind.__module__ == module.__name__
        ]
        if len(classes) != 1:
            remedy = "give your copy of the authors' pipeline.py"
            raise InputError("views.pipeline", f"{self.code} holds {len(classes)} pipelines, not one", remedy)
        # its code takes its networks to lie on one device
        slicing = self.config.attention_slicing
        pipeline = self.checkpoint.load_pipeline(classes[0], self.device, slicing, can_offload=False)
        sampler: Any = EulerAncestralDiscreteScheduler
        pipeline.scheduler = sampler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
        return pipeline


def on_white(image: Float[Tensor, "*batch H W 4"]) -> Float[Tensor, "*batch H W 3"]:
    """Composite straight RGBA in [0, 1] on white."""
    alpha = image[..., 3:]
    return image[..., :3] * alpha + (1 - alpha)


def view_angles(config: ViewsConfig) -> tuple[list[float], list[float]]:
    """The azimuths and elevations to request, degrees relative to the input view.

    Raises:
        InputError: The numbers of azimuths and elevations differ.
    """
    if config.kind is ViewsKind.ZERO123PLUS:
        own = Zero123PlusViews.ELEVATIONS
        return list(Zero123PlusViews.AZIMUTHS), [elevation - config.reference_elevation for elevation in own]
    elevations = config.elevations * len(config.azimuths) if len(config.elevations) == 1 else config.elevations
    if len(elevations) != len(config.azimuths):
        what = f"{len(config.elevations)} numbers for {len(config.azimuths)} azimuths"
        raise InputError("views.elevations", what, "give one for each, or one for all")
    return list(config.azimuths), list(elevations)


def build_views(config: ViewsConfig, device: torch.device, matting: Matting) -> ViewSynthesizer:
    """The diffusion model that the settings name.

    Args:
        config: The settings; their `kind` is that of a diffusion model.
        device: Where the networks run.
        matting: Mattes the views of models that generate a background.

    Raises:
        InputError: The model is not available.
        ValueError: The kind is not that of a diffusion model.
    """
    match config.kind:
        case ViewsKind.ZERO123 | ViewsKind.STABLE_ZERO123:
            return Zero123Views(config, device)
        case ViewsKind.ZERO123PLUS:
            return Zero123PlusViews(config, device, matting)
        case _:
            raise ValueError(f"no network makes views of kind {config.kind.value}")
