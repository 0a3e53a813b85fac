"""Cache entries: results of providers and prepared scenes.

Each is a folder that is complete or absent, and is checked whenever it is read. A result consists of
`data.safetensors` and `manifest.json`; a scene is a scene folder whose `scene.json` lists the hashes of its files.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors.torch import load, save_file
from torch import Tensor

from kg4d import __version__
from kg4d.data.readers.scene_folder import RECORD
from kg4d.data.scene_writer import hashes
from kg4d.priors.base import Identity
from kg4d.utils.files import replacing_folder
from kg4d.utils.reading import read_json, regular

FORMAT = 1
DATA, MANIFEST = "data.safetensors", "manifest.json"
SCENES = "scenes"  # the folder of the prepared scenes, beside the results


@dataclass(frozen=True)
class Request:
    """What identifies a result.

    Attributes:
        provider: Name of the provider.
        identity: Everything that decides the result besides the input.
        input_sha256: Hash of the input tensors.
    """

    provider: str
    identity: Identity
    input_sha256: str

    @property
    def key(self) -> str:
        """SHA-256 of provider, identity and input."""
        text = json.dumps([self.provider, dict(self.identity), self.input_sha256], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of the result's folder below the root of a cache."""
        return f"{self.provider}-{self.key}"


@dataclass(frozen=True)
class Manifest:
    """The description that is stored with a result.

    Attributes:
        format: Version of the format of the entry.
        provider: Name of the provider.
        identity: Everything that decided the result besides the input.
        input_sha256: Hash of the input tensors.
        content_sha256: Hash of the data file.
        created: Seconds since 1970.
        package: Version of this package that wrote the entry; for information only.
    """

    format: int
    provider: str
    identity: Identity
    input_sha256: str
    content_sha256: str
    created: float
    package: str


class BrokenEntryError(ValueError):
    """An entry cannot be used; the message says why."""


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an entry.

    Raises:
        BrokenEntryError: The manifest is missing, cut short, of another format, or belongs to another entry.
    """
    try:
        table = read_json(folder / MANIFEST)
    except (OSError, ValueError) as error:
        raise BrokenEntryError(f"{MANIFEST} is missing or cut short") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        found = table.get("format") if isinstance(table, dict) else None
        raise BrokenEntryError(f"written in format {found}, not {FORMAT}")
    if set(table) != {field.name for field in fields(Manifest)}:
        raise BrokenEntryError(f"{MANIFEST} has other keys than this version writes")
    if not isinstance(table["identity"], dict) or not isinstance(table["created"], int | float):
        raise BrokenEntryError(f"{MANIFEST} has other values than this version writes")
    manifest = Manifest(**table)
    if folder.name != Request(manifest.provider, manifest.identity, manifest.input_sha256).folder_name:
        raise BrokenEntryError(f"{MANIFEST} belongs to another entry")
    return manifest


def read_entry(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of an entry after checking every byte.

    Raises:
        BrokenEntryError: A file is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    try:
        data = regular(folder / DATA).read_bytes()
    except OSError as error:
        raise BrokenEntryError(f"{DATA} is missing") from error
    if hashlib.sha256(data).hexdigest() != manifest.content_sha256:
        raise BrokenEntryError(f"{DATA} is cut short or changed")
    tensors: dict[str, Tensor] = load(data)
    return tensors


def write_entry(root: Path, request: Request, tensors: Mapping[str, Tensor]) -> None:
    """Write an entry, replacing any that is there; the caller must hold its lock."""
    folder = root / request.folder_name
    with replacing_folder(folder, over=True) as part:
        save_file(dict(tensors), part / DATA)
        content = hashlib.sha256((part / DATA).read_bytes()).hexdigest()
        manifest = Manifest(FORMAT, **asdict(request), content_sha256=content, created=time.time(), package=__version__)
        (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")


def check(folder: Path) -> None:
    """Verify a result or a scene by reading every byte.

    Raises:
        BrokenEntryError: A file is missing, cut short or changed.
    """
    if folder.parent.name == SCENES:
        read_scene_record(folder)
    else:
        read_entry(folder)


def read_scene_record(folder: Path) -> dict[str, Any]:
    """Read the `scene.json` of a prepared scene after checking every byte of the files that it lists.

    Raises:
        BrokenEntryError: It, or a file that it lists, is missing, cut short or changed.
    """
    try:
        table: dict[str, Any] = read_json(folder / RECORD)
        listed = dict(table["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenEntryError(f"{RECORD} is missing, cut short or of another version") from error
    try:
        found = hashes(folder, listed)
    except OSError as error:
        raise BrokenEntryError(f"a file of it is missing: {error.filename}") from error
    changed = [name for name in found if found[name] != listed[name]]
    if changed:
        raise BrokenEntryError(f"{changed[0]} is cut short or changed")
    return table


def created_and_description(folder: Path) -> tuple[float, str]:
    """When a result or a scene was made, in seconds since 1970, and a description of what it was made from.

    Raises:
        BrokenEntryError: Its record is missing or cut short.
    """
    if folder.parent.name != SCENES:
        manifest = read_manifest(folder)
        return manifest.created, ", ".join(f"{key}={value}" for key, value in manifest.identity.items())
    try:
        path = folder / RECORD
        return path.stat().st_mtime, f"scene of {read_json(path)['source']['path']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenEntryError(f"{RECORD} is missing or cut short") from error
