"""What W&B has written to disk without a server, read back from its own log."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


def keep_wandb_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B keeps parts of tables below the home folder, and would look for a login there."""
    for name in ("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def log_records(path: Path) -> Iterator[bytes]:
    """Records of a .wandb file: a LevelDB log of 32 KiB blocks after a 7-byte header of W&B's own."""
    data, position, parts = path.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


@dataclass
class OfflineRun:
    """What an offline run recorded."""

    project: str = ""
    group: str = ""
    name: str = ""
    id: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    exit_code: int | None = None


def read_offline_run(path: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    found = OfflineRun()
    for data in log_records(path):
        record = wandb_internal_pb2.Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                found.project, found.group, found.name = run.project, run.run_group, run.display_name
                found.id, found.job_type = run.run_id, run.job_type
                found.tags = list(run.tags)
                found.config |= entries(run.config.update)
            case "history":
                found.history.append(entries(record.history.item))
            case "summary":
                found.summary |= entries(record.summary.update)
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def entries(items) -> dict:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def offline_runs(folder: Path) -> list[OfflineRun]:
    """All runs below a folder, by start time; W&B's own process may still be writing the end of the last one."""
    paths = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    deadline = time.monotonic() + 10
    while any(read_offline_run(path).exit_code is None for path in paths) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [read_offline_run(path) for path in paths]
