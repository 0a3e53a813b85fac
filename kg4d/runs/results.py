"""What the runs of one experiment reached, gathered from their folders and compared."""

import logging
from collections.abc import Iterable

from kg4d.config.load import Run
from kg4d.config.schema import ExperimentConfig
from kg4d.runs.folder import RunFolder, experiment_folder
from kg4d.tracking.settings import WandbMode
from kg4d.tracking.tables import print_table, write_tables

_log = logging.getLogger(__name__)

Results = dict[str, dict[str, dict[int, dict[str, float]]]]  # metrics by variant, scene and seed


def gather(runs: Iterable[Run[ExperimentConfig]]) -> Results:
    """The metrics of the runs that are done, those of other calls too (other variants on other machines, say).

    A folder that was fitted under other settings is left out, with a warning.
    """
    results: Results = {}
    for one in runs:
        folder = RunFolder.of(one.config)
        reached = folder.read_metrics()
        if reached is None:
            continue
        if not folder.matches(one.config):
            _log.warning("%s: left out of the table, it was made with other settings", folder.path)
            continue
        results.setdefault(one.variant, {}).setdefault(one.scene, {})[one.seed] = reached["metrics"]
    return results


def compare(results: Results, config: ExperimentConfig) -> None:
    """Write the table of an experiment above its runs, log it and print it; where it lists scenes one for each, too.

    Args:
        results: As `gather` gives them.
        config: Of any of the runs; names the experiment and says how it is tracked.
    """
    above = experiment_folder(config)
    if config.scenes:
        for scene in dict.fromkeys(scene for scenes in results.values() for scene in scenes):
            own = {variant: {scene: scenes[scene]} for variant, scenes in results.items() if scene in scenes}
            write_tables(above / scene, own)
    table = write_tables(above, results)
    if config.tracking.wandb.mode is not WandbMode.DISABLED:
        from kg4d.tracking.tracker import log_table  # here, because it loads torch

        log_table(config.tracking, above, config.name, table)
    print_table(table)
    print(f"table    {above / 'table.md'}")
