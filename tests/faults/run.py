"""`make faults`: kills, full disks, two at once, folders that are read-only; prints what survived.

The package is loaded once; each try is a forked child. `python -m tests.faults.run KILLS`.
"""

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from kg4d import export
from kg4d.data.scene_writer import write_scene
from kg4d.data.synthetic.scene import make_scene
from kg4d.errors import InputError
from kg4d.pipeline import fit
from kg4d.priors.keypoints.settings import KeypointsKind
from kg4d.priors.prepare import prepare
from kg4d.priors.settings import PriorsConfig
from kg4d.render.build import build_renderer
from kg4d.utils.cli import run as command
from tests.priors.clips import save_video
from tests.tiny_runs import tiny

REFUSED = 2
NOBODY = 65534


def forked(work: Callable[[], object], kill_after: float | None = None, largest: int | None = None) -> int:
    """Do the work in a child; its exit status, or minus the signal that ended it."""
    child = begun(work, largest)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return ended(child)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begun(work: Callable[[], object], largest: int | None = None, nobody: bool = False) -> int:
    """Begin the work in a child, which gets no file larger than `largest` bytes, or no right of root; its number."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        if largest is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        if nobody and os.geteuid() == 0:
            os.setuid(NOBODY)
        try:
            status = work()
        except InputError:
            os._exit(REFUSED)
        except BaseException:
            os._exit(1)
        os._exit(status if isinstance(status, int) else 0)
    return child


def files(folder: Path, patterns: str) -> dict[str, bytes]:
    found = [path for pattern in patterns.split() for path in sorted(folder.rglob(pattern))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class Trial:
    """Something that is begun, ended by force, and done again.

    Args:
        name: For the table.
        first: Begins it, in a folder.
        again: Does it after it was ended by force.
        patterns: Of the files that must be the same as those of an undisturbed one.
    """

    def __init__(
        self, name: str, first: Callable[[Path], object], again: Callable[[Path], object], patterns: str
    ) -> None:
        self.name, self.first, self.again, self.patterns = name, first, again, patterns

    def undisturbed(self, folder: Path) -> tuple[dict[str, bytes], float]:
        start = time.perf_counter()
        assert forked(lambda: self.first(folder)) == 0, self.name
        return files(folder, self.patterns), time.perf_counter() - start

    def survives(self, folder: Path, right: dict[str, bytes], **how: float | int) -> bool:
        """Whether it comes to the same after it was disturbed, and leaves no half-written file."""
        forked(lambda: self.first(folder), **how)
        if forked(lambda: self.again(folder)) != 0:
            return False
        return files(folder, self.patterns) == right and not list(folder.rglob(".*.part*"))

    def survives_another(self, folder: Path, right: dict[str, bytes], after: float) -> bool:
        """Whether two at once come to the same: each is done or refused, and one is done."""
        first = begun(lambda: self.first(folder))
        time.sleep(after)
        statuses = {forked(lambda: self.first(folder)), ended(first)}
        return 0 in statuses and statuses <= {0, REFUSED} and files(folder, self.patterns) == right

    def is_refused_read_only(self, folder: Path) -> bool:
        """Whether a folder that nothing can be written to is refused, and stays empty."""
        folder.mkdir()
        folder.chmod(0o555)
        return ended(begun(lambda: self.first(folder), nobody=True)) == REFUSED and not list(folder.iterdir())


def trials(work: Path) -> list[Trial]:
    write_scene(make_scene("walker", build_renderer("cpu"), size=32, frames=4), work / "scene")
    video = save_video(work / "video.mp4")
    words = (f"scene={work / 'scene'}", "static.steps=20", "dynamic.steps=20")

    def fits(name: str, *lift: str) -> Trial:
        def begin(folder: Path) -> object:
            return fit(tiny(folder, *words, *lift, file=name))

        def resume(folder: Path) -> object:
            return fit(tiny(folder, *words, *lift, file=name), resume=True)

        return Trial(f"fit, preset {name}", begin, resume, "metrics.json frame_*.ply")

    def prepared(folder: Path) -> None:
        config = PriorsConfig(cache=str(folder / "cache"), progress_bar=False)
        config = replace(config, keypoints=replace(config.keypoints, kind=KeypointsKind.NONE))
        prepare(config, video, folder / "scene")

    def prepared_again(folder: Path) -> None:
        if not (folder / "scene").exists():
            prepared(folder)

    run = fit(tiny(work / "run", *words))

    def exported(folder: Path) -> int:
        words = ["--run", str(run), "--format", "ply,mp4", "--out", str(folder)]
        return command(export.main, export.parser(), words)

    return [
        fits("kg4d"),
        fits("recommended", "lift.steps=10", "lift.trial_steps=2"),  # half of its time
        Trial("prepare of a video", prepared, prepared_again, "transforms_train.json"),
        Trial("export of ply and mp4", exported, exported, "*.ply *.mp4"),
    ]


def main(kills: int) -> int:
    """Print the table; the exit status is the number of losses."""
    draw, losses = random.Random(0), 0
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        work.chmod(0o755)
        print("| what | tried | survived | lost |\n|---|---|---|---|")
        for index, trial in enumerate(trials(work)):
            right, seconds = trial.undisturbed(work / f"right{index}")
            assert right
            moments = [draw.uniform(0.02, seconds) for _ in range(kills)]
            ways: dict[str, list[Callable[[Path], bool]]] = {
                "SIGKILL": [partial(trial.survives, right=right, kill_after=moment) for moment in moments],
                "disk full": [partial(trial.survives, right=right, largest=size) for size in (100, 20_000)],
                "two at once": [
                    partial(trial.survives_another, right=right, after=share * seconds) for share in (0, 0.3, 0.6)
                ],
                "read-only folder": [trial.is_refused_read_only],
            }
            for way, tries in ways.items():
                survived = 0
                for number, comes_through in enumerate(tries):
                    folder = work / f"{index}-{way}-{number}".replace(" ", "_")
                    survived += comes_through(folder)
                    shutil.rmtree(folder, ignore_errors=True)
                losses += len(tries) - survived
                print(f"| {trial.name}: {way} | {len(tries)} | {survived} | {len(tries) - survived} |", flush=True)
    return losses


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
