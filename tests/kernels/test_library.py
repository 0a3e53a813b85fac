import ctypes

import pytest

from kg4d import kernels
from kg4d.kernels import library

pytestmark = pytest.mark.skipif(kernels.missing_reason() is not None, reason="needs the native kernels")


class LongerStatistics(kernels.Statistics):
    _fields_ = (("one_more", ctypes.c_int64),)


def test_a_library_whose_records_have_another_size_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    records = tuple(LongerStatistics if record is kernels.Statistics else record for record in library._RECORDS)
    monkeypatch.setattr(library, "_RECORDS", records)
    reason = library._load.__wrapped__()
    here = ctypes.sizeof(LongerStatistics)
    assert f"its LongerStatistics has {here - 8} bytes, this package's {here}" in reason
    assert "pip install" in reason


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_ABI_VERSION", 3)
    assert "version" in library._load.__wrapped__()


def test_every_record_of_the_header_has_its_counterpart() -> None:
    size = kernels.native_library().kg4d_struct_size
    assert [size(number) for number in range(-1, len(library._RECORDS) + 1)] == [
        -1,
        *map(ctypes.sizeof, library._RECORDS),
        -1,
    ]
