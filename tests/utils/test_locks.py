import os
import subprocess
import sys
from pathlib import Path

import pytest

from kg4d.errors import InputError
from kg4d.utils.locks import held_alone

HOLDER = """
import sys, time
from pathlib import Path
from kg4d.utils.locks import held_alone
with held_alone(Path(sys.argv[1]) / ".lock", Path(sys.argv[1]), "wait"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_which_is_named_until_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"is in use by process {other.pid} on .* \(wait for it\)"):
            enter(tmp_path)
        other.kill()
        other.wait()
        enter(tmp_path)


def enter(folder: Path) -> None:
    with held_alone(folder / ".lock", folder, "wait for it"):
        assert str(os.getpid()) in (folder / ".lock.holder").read_text()


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), held_alone(tmp_path / ".lock", tmp_path, "wait"):
        raise RuntimeError
    enter(tmp_path)
    assert not (tmp_path / ".lock.holder").exists()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        enter(tmp_path / "file")
