"""Checkpoints of diffusion models: finding their files and loading them. Code from a repository is never run."""

import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from kg4d.errors import InputError
from kg4d.priors.weights import hash_of_weights

_log = logging.getLogger(__name__)

EXTRA = 'pip install "kg4d[priors]"'
LICENCES = {
    "ashawkey/zero123-xl-diffusers": "MIT as its page says",
    "ashawkey/stable-zero123-diffusers": "MIT as its page says; made from stabilityai/stable-zero123, non-commercial",
    "sudo-ai/zero123plus-v1.1": "CC BY-NC 4.0: non-commercial",
    "sudo-ai/zero123plus-v1.2": "CC BY-NC 4.0: non-commercial",
    "stabilityai/stable-video-diffusion-img2vid": "Stability AI's own: read it before any commercial use",
    "stabilityai/stable-video-diffusion-img2vid-xt": "Stability AI's own: read it before any commercial use",
    "stabilityai/stable-video-diffusion-img2vid-xt-1-1": "Stability AI's own: read it before any commercial use",
}
_READ = {".json", ".txt", ".model", ".safetensors"}  # nothing that could hold code


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model on this disk.

    Attributes:
        key: Dotted key of the setting that names the model, for errors.
        model: Hub id or folder, as the setting names it.
        folder: Has one subfolder per component.
    """

    key: str
    model: str
    folder: Path

    def load(self, component: str, network: type[Any], device: torch.device) -> Any:
        """Load a component with `from_pretrained` of its class: frozen, on `device`, in half precision on CUDA.

        Args:
            component: Name of its subfolder.
            network: Its class, of diffusers or transformers.
            device: Where it runs.

        Raises:
            InputError: It is missing, damaged, or its weights do not fit the class.
        """
        folder = self.folder / component
        variant = "fp16" if any(folder.glob("*.fp16*.safetensors")) else None
        with self.reading(component), _quiet():
            loaded, report = network.from_pretrained(
                folder,
                variant=variant,
                dtype=precision(device),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            absent = sorted(report["missing_keys"])
            if absent:  # they would be random numbers
                raise ValueError(f"no weights for {', '.join(absent[:3])}")
        return loaded.eval().requires_grad_(False).to(device)

    def load_pipeline(
        self, pipeline: type[Any], device: torch.device, attention_slicing: bool, *, can_offload: bool = True
    ) -> Any:
        """Load a whole pipeline with `from_pretrained` of its class.

        It lies on `device`. Where a GPU is short of memory, parts that are idle stay in main memory.

        Args:
            pipeline: Its class, of diffusers.
            device: Where it runs.
            attention_slicing: Compute attention in slices: less memory, more time.
            can_offload: Whether its code bears that parts lie elsewhere.

        Raises:
            InputError: A part is missing, damaged, or needs code from the folder.
        """
        variant = "fp16" if any(self.folder.glob("*/*.fp16*.safetensors")) else None
        with self.reading("the pipeline"), _quiet():
            loaded = pipeline.from_pretrained(
                self.folder,
                variant=variant,
                dtype=precision(device),
                use_safetensors=True,
                local_files_only=True,
            )
        loaded.set_progress_bar_config(disable=True)
        if attention_slicing:
            if not any(hasattr(part, "set_attention_slice") for part in loaded.components.values()):
                _log.warning("%s has no part that can compute attention in slices: that does nothing", self.model)
            loaded.enable_attention_slicing()
        if can_offload and device.type == "cuda" and _too_large(loaded, device):
            _log.info("%s: %s is short of memory, idle parts stay in main memory", self.model, device)
            loaded.enable_model_cpu_offload(device=device)
        else:
            loaded.to(device)
        return loaded

    @contextmanager
    def reading(self, component: str) -> Iterator[None]:
        """Turn the exceptions that libraries raise for unusable files into an `InputError`."""
        try:
            yield
        except (AttributeError, OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            what = f"{component} of {self.model} cannot be used: {_first_line(error)}"
            remedy = f"fetch the model again, or give another folder with {self.key}=<folder>"
            raise InputError(self.key, what, remedy) from error

    def fingerprint(self, components: Sequence[str] = ()) -> str:
        """Hash of the settings and weights of these components, or of all components if none is named."""
        names = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        digest = hashlib.sha256()
        for name in wanted_files(names, components):
            digest.update(f"{name} {hash_of_weights(self.folder / name)}\n".encode())
        return digest.hexdigest()[:16]


def find_checkpoint(key: str, model: str, components: Sequence[str], *, local_files_only: bool = False) -> Checkpoint:
    """Find a model: in a folder, in the local cache of the hub, or on the hub, in this order.

    Args:
        key: Dotted key of the setting that names the model, for errors.
        model: A folder, or the id of a model on the Hugging Face hub.
        components: Subfolders that must exist; if empty, those that `model_index.json` names.
        local_files_only: Do not contact the hub.

    Raises:
        InputError: The model or one of its components is missing, or the libraries are not installed.
    """
    require_libraries(key, model)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
            raise InputError(key, f"no folder {model}", "give a folder that holds the model, or an id on the hub")
        folder = _from_hub(key, model, components, local_files_only)
        announce_licence(model)
    missing = _missing(folder, components)
    if missing:
        what = f"{model} holds no complete {', '.join(missing)}"
        raise InputError(key, what, f"give the folder of a complete model with {key}=<folder>")
    return Checkpoint(key, model, folder)


def require_libraries(key: str, model: str) -> None:
    """Check that the libraries for diffusion models are installed.

    Raises:
        InputError: One of them is not.
    """
    absent = [name for name in ("diffusers", "transformers", "accelerate") if importlib.util.find_spec(name) is None]
    if absent:
        raise InputError(key, f"{model} needs {' and '.join(absent)}", EXTRA)


@cache
def announce_licence(model: str) -> None:
    """Log the licence of the weights, once per process."""
    terms = LICENCES.get(model, f"not known here, see https://huggingface.co/{model}")
    _log.info("%s: licence of the weights: %s", model, terms)


def networks_device() -> torch.device:
    """Where diffusion models run: on the GPU if there is one, that of the renderer where it draws on one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _too_large(pipeline: Any, device: torch.device) -> bool:
    """Whether the weights would fill more than half of what is free on a GPU: activations need memory too."""
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    needed = sum(tensor.numel() * tensor.element_size() for part in parts for tensor in part.state_dict().values())
    return bool(2 * needed > torch.cuda.mem_get_info(device)[0])


def precision(device: torch.device) -> torch.dtype:
    """The precision of networks: half on CUDA, else single."""
    return torch.float16 if device.type == "cuda" else torch.float32


def wanted_files(names: Iterable[str], components: Sequence[str]) -> list[str]:
    """The files of a repository that are used: settings, and one set of weights per component, in half if available.

    Args:
        names: All files of the repository, relative to its root.
        components: Subfolders to keep; all if empty.

    >>> wanted_files(["README.md", "unet/config.json", "unet/w.safetensors", "unet/w.fp16.safetensors"], ["unet"])
    ['unet/config.json', 'unet/w.fp16.safetensors']
    """
    chosen = []
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, rest = name.partition("/")
        if name == "model_index.json":
            chosen.append(name)
        elif rest and Path(name).suffix in _READ and (folder in components or not components):
            folders.setdefault(folder, []).append(name)
    for files in folders.values():
        half = [name for name in files if ".safetensors" in name and ".fp16" in name]
        chosen += [name for name in files if not half or ".safetensors" not in name or name in half]
    return chosen


def _from_hub(key: str, model: str, components: Sequence[str], local_files_only: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        kept = Path(snapshot_download(model, local_files_only=True))
        if local_files_only or not _missing(kept, components):
            return kept
    except LocalEntryNotFoundError:
        pass
    why = "it may not be fetched (local_files_only)"
    if not local_files_only:
        try:
            # a short request first: the download itself would retry for half a minute before giving up
            found = HfApi().model_info(model, timeout=10).siblings or []
            files = wanted_files([file.rfilename for file in found], components)
            announce_licence(model)
            _log.info("%s: fetching %d files from the Hugging Face hub", model, len(files))
            return Path(snapshot_download(model, allow_patterns=files))
        except Exception as error:  # the library raises many kinds for networks, names and rights
            why = f"the Hugging Face hub did not give it: {_first_line(error)}"
    raise InputError(
        key,
        f"{model} is not on this machine, and {why}",
        f"give a folder that holds it with {key}=<folder>, or run `hf download {model}` where there is a network; "
        f"the libraries for it come with {EXTRA}",
    )


def _missing(folder: Path, components: Sequence[str]) -> list[str]:
    """The components that are missing, or have settings but not all of their weights."""
    if not components:
        index = folder / "model_index.json"
        if not index.is_file():
            return [index.name]
        try:
            entries = json.loads(index.read_text(encoding="utf-8")).items()
        except (ValueError, AttributeError):
            return [index.name]
        components = [name for name, value in entries if _names_class(value)]
    return [name for name in components if not _complete(folder / name)]


def _names_class(entry: object) -> bool:
    """Whether an entry of `model_index.json` names the class of a component.

    Other entries are settings of the pipeline, lists of numbers among them, or components that are left out.
    """
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _complete(folder: Path) -> bool:
    weights = {path.name for path in folder.glob("*.safetensors")}
    for index in folder.glob("*.safetensors.index*.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (AttributeError, KeyError, TypeError, ValueError):  # cut short, or no index
            return False
        if not shards <= weights:
            return False
    return bool(weights) if (folder / "config.json").is_file() else any(folder.glob("*.json"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and notes of the libraries; their errors are raised, not logged."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    levels = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    try:
        for library, _ in levels:
            library.set_verbosity_error()
            library.disable_progress_bar()
        yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
            library.enable_progress_bar()


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__
