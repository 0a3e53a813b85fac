"""A tiny fit on pretended GPUs, in a process of its own: the checks of shapes that tests switch on would take minutes.

`python -m tests.pretended_fit '{"output": ..., "overrides": [...]}'` prints the run folder and what its steps cost.
"""

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.tiny_runs import ROOT


class Step(NamedTuple):
    """What a step has cost."""

    operations: int
    waits: list[str]
    renders: list[int]  # the number of images of each call of gsplat


class Fitted(NamedTuple):
    """A run, and the costs of its steps by stage."""

    folder: Path
    steps: dict[str, list[Step]]

    @property
    def record(self) -> dict[str, Any]:
        """What `run.json` says."""
        return dict(json.loads((self.folder / "run.json").read_text()))


def fitted(
    output: Path,
    *overrides: str,
    file: str = "kg4d",
    gpus: int = 1,
    cut_short: tuple[str, int] | None = None,
    read_back: bool = False,
) -> Fitted:
    """Run one, perhaps cut short at a step of a stage and resumed, perhaps read back, measured again and exported."""
    settings = {"output": str(output), "overrides": overrides, "file": file, "gpus": gpus}
    settings |= {"cut_short": cut_short, "read_back": read_back}
    command = [sys.executable, "-m", "tests.pretended_fit", json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    folder, steps = json.loads(done.stdout.splitlines()[-1])
    return Fitted(Path(folder), {name: [Step(*one) for one in found] for name, found in steps.items()})


def main(settings: dict[str, Any]) -> None:
    """Run the fit of these settings."""
    from kg4d.pipeline import fit
    from kg4d.runs.measure import evaluate_run
    from kg4d.runs.outputs import export_run
    from kg4d.stages.base import Stage
    from tests.pretended_gpu import pretend_gpus
    from tests.tiny_runs import tiny

    patch = pytest.MonkeyPatch()
    mode, steps, real = pretend_gpus(patch, settings["gpus"]), collections.defaultdict(list), Stage.take_step
    cut_short = settings["cut_short"]

    def take_step(stage: Stage[Any], batch: Any, *args: Any) -> Any:
        if cut_short == [stage.name, batch.step]:
            raise InterruptedError
        with mode.counted():
            done = real(stage, batch, *args)
        waits = [f"{number} {what} at {where}" for (what, where), number in mode.waits.items()]
        steps[stage.name].append(Step(mode.operations, waits, list(mode.renders)))
        return done

    patch.setattr(Stage, "take_step", take_step)
    config = tiny(Path(settings["output"]), *settings["overrides"], file=settings["file"])
    with mode:
        try:
            folder = fit(config)
        except InterruptedError:
            cut_short = None
            folder = fit(config, resume=True)
        if settings["read_back"]:
            before = json.loads((folder / "metrics.json").read_text())["metrics"]
            assert {key: pytest.approx(value) for key, value in before.items()} == evaluate_run(folder).metrics
            export_run(folder, ["ply"])
    print(json.dumps([str(folder), steps]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
