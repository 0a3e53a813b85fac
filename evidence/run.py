"""Run the fits of the plan side by side, one thread each. What is done stays: call it again to go on.

    python -m evidence.run [--workers 2] [--group presets] [--scene fox] [--seed 0]

Arms whose static stage is the same share it: the first of them fits it, the others load its checkpoint. Arms that
differ only in what is measured share all stages.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

import kg4d.utils.before_torch  # noqa: F401  (before torch)
from evidence.plan import ROOT, jobs, read_plan, share_in_plan
from evidence.plan import Job as Planned
from kg4d.config.load import Run, load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.runs.folder import RunFolder
from kg4d.sweeps.board import Progress
from kg4d.sweeps.cards import places_on_cores
from kg4d.sweeps.jobs import Job, State, state_of
from kg4d.sweeps.local import LocalEngine
from kg4d.sweeps.runner import FAILURES, Fixed, carry_out

OUTPUT = ROOT / "build" / "evidence"


def run_folder(group: str, arm: str, scene: str, seed: int) -> RunFolder:
    """Where a run of the plan lies."""
    return RunFolder(OUTPUT / group / scene / arm / f"seed{seed}")


def job_of(planned: Planned, number: int, total: int) -> Job:
    """A fit of the plan, which begins with the stages that others have done."""
    config = load_config(ExperimentConfig, planned.config, planned.overrides)
    label = f"{planned.group}: {planned.scene}, {planned.arm}, seed {planned.seed} ({number} of {total})"
    return Job(Run(planned.scene, planned.arm, planned.seed, config), label, resume=True, before=share_in_plan)


def left_to_do(chosen: Sequence[Planned]) -> Iterator[Job]:
    """Those that are not done, one after the other: to look at all of them takes a minute."""
    for number, planned in enumerate(chosen, start=1):
        job = job_of(planned, number, len(chosen))
        if state_of(job.run) is not State.DONE:
            yield job


def main() -> int:
    """Run what the command line selects; 1 where a fit failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="fits at a time")
    for name in ("group", "scene", "seed", "arm"):
        parser.add_argument(f"--{name}", nargs="*", help=f"only these {name}s")
    args = parser.parse_args()
    wanted = {name: getattr(args, name) for name in ("group", "scene", "seed", "arm")}
    chosen = [
        job
        for job in jobs(read_plan(), OUTPUT)
        if all(values is None or str(getattr(job, name)) in values for name, values in wanted.items())
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it loads, in the workers
    with LocalEngine(places_on_cores(args.workers)) as engine, Progress(len(chosen)).shown() as progress:
        outcomes = carry_out(Fixed(left_to_do(chosen)), engine, progress)
    failed = [outcome for outcome in outcomes if outcome.end in FAILURES]
    for outcome in failed:
        print(f"FAILED {outcome.job.label}: {outcome.error} (see {outcome.job.folder.log})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
