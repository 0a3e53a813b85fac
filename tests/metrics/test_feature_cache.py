"""Kept features: digit for digit, never of anything else, of bounded size; and the networks' work side by side."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kg4d.metrics.feature_cache import FeatureCache
from kg4d.metrics.side_by_side import side_by_side

ONE, OTHER = "1" * 64, "2" * 64


def test_what_was_kept_comes_back_and_only_that(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path), torch.randn(3, 400)
    assert cache.read(ONE, 3) is None
    cache.write(ONE, features)
    assert torch.equal(cache.read(ONE, 3), features)
    assert cache.read(ONE, 4) is None
    assert cache.read(OTHER, 3) is None


def test_changed_and_foreign_files_do_not_count(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path), torch.randn(3, 4)
    cache.write(ONE, features)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:40], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(broken)
        assert cache.read(ONE, 3) is None
    cache.write(OTHER, features)
    (other,) = set(tmp_path.iterdir()) - {file}
    other.replace(file)  # a good file under the name of another
    assert cache.read(ONE, 3) is None
    save_file({"features": features}, file)
    assert cache.read(ONE, 3) is None
    cache.write(ONE, features)
    assert torch.equal(cache.read(ONE, 3), features)


def test_what_was_asked_for_last_stays(tmp_path: Path) -> None:
    FeatureCache(tmp_path).write(ONE, torch.zeros(3, 100))
    (file,) = tmp_path.iterdir()
    cache = FeatureCache(tmp_path, most_bytes=3 * file.stat().st_size)
    names = [str(digit) * 64 for digit in range(2, 6)]
    for age, name in enumerate(names):
        cache.write(name, torch.zeros(3, 100))
        for old in tmp_path.iterdir():
            state = old.stat()
            os.utime(old, ns=(state.st_atime_ns, state.st_mtime_ns - 10**9))
        if age < 2:
            assert cache.read(ONE, 3) is not None  # which makes it the newest
    assert [name for name in (ONE, *names) if cache.read(name, 3) is not None] == [ONE, *names[2:]]


def test_a_folder_that_cannot_be_written_only_means_that_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "features")
    cache.write(ONE, torch.zeros(2, 2))
    assert cache.read(ONE, 2) is None


def test_results_keep_their_order_and_the_threads_their_number() -> None:
    before = torch.get_num_threads()
    inside = list(side_by_side(lambda item: (item, torch.get_num_threads(), torch.is_grad_enabled()), range(20)))
    assert inside == [(item, 1, False) for item in range(20)]
    assert torch.get_num_threads() == before

    def fail(item: int) -> int:
        raise ValueError(str(item))

    with pytest.raises(ValueError, match="0"):
        list(side_by_side(fail, range(3)))
    assert torch.get_num_threads() == before
