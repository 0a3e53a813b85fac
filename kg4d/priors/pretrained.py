"""Networks of transformers, by the id of a model on the Hugging Face hub or by a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kg4d.errors import InputError

EXTRA = 'pip install "kg4d[priors]"'


class Pretrained(NamedTuple):
    """A network and where its files are."""

    network: Any
    folder: Path


def load_pretrained(key: str, model: str, auto: str, files: Sequence[str], otherwise: str) -> Pretrained:
    """A network, frozen, on the CPU. Nothing but the named files is fetched, and no code from them is run.

    Args:
        key: Dotted key of the setting that names the model, for errors.
        model: A folder that `save_pretrained` wrote, or an id on the hub.
        auto: The class of transformers that knows which network it is, such as `AutoModel`.
        files: Patterns of the files that are fetched from the hub where they are not on this machine.
        otherwise: What to set to do without it, for errors.

    Raises:
        InputError: The library is not installed, or the model cannot be had, is damaged, or lacks weights.
    """
    remedy = f"give a folder that holds it with {key}=<folder>, or run `hf download {model}` where there is a network, "
    remedy += f"or set {otherwise}; the libraries come with {EXTRA}"
    try:
        import transformers
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(key, f"{model} needs transformers, which is not installed", remedy) from error
    folder = Path(model).expanduser()
    try:
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(model, local_files_only=True))
            except LocalEntryNotFoundError:
                HfApi().model_info(model, timeout=10)  # a short request: a download would retry for half a minute
                folder = Path(snapshot_download(model, allow_patterns=list(files)))
        network, report = getattr(transformers, auto).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        absent = sorted(report["missing_keys"])
        if absent:  # they would be random numbers
            raise ValueError(f"no weights for {', '.join(absent[:3])}")
    except Exception as error:  # the libraries raise many kinds for networks and files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise InputError(key, f"{model} cannot be had: {reason}", remedy) from error
    return Pretrained(network.eval().requires_grad_(False), folder)
