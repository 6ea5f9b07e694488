"""One Tuner run for all stages of a study."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.progress_reporter import TrialProgressCallback

from study.core.console import CLUSTER_GONE, EXIT_OUTPUT_ERROR
from study.engine.cluster import Resources
from study.engine.heartbeat import ClusterLost, Heartbeat, own_node_is_alive
from study.engine.tune_adapter import Faults, TuneScheduler, TuneSearcher
from study.scheduler.study_scheduler import StudyScheduler
from study.storage.checkpoints import CheckpointCleaner

GO_ON = "the study ends here; --resume goes on with it"
SHOW_CURSOR = "\x1b[?25h"  # the live panel hides it


class _Silence(TrialProgressCallback):
    """In the place of Tune's own, which prints a line for a trial that ends without a result, at
    whatever verbosity."""

    def _print(self, msg: str) -> None:
        pass


def _trial(config: dict[str, Any]) -> None:
    from study.engine import worker

    worker.run(config)


def _end(reason: str) -> None:
    """The ledger holds every line already; what is tracked elsewhere follows it on resume."""
    if sys.stdout.isatty():
        print(SHOW_CURSOR, end="", flush=True)
    print(f"error: {reason}: {GO_ON}", file=sys.stderr, flush=True)
    os._exit(EXIT_OUTPUT_ERROR)


def _own_id(trial: TuneTrial) -> str:
    return str(trial.config["run"]["id"])


def _own_folder(trial: TuneTrial) -> str:
    return f"{trial.config['run']['id']}-a{trial.config['run']['attempt']}"


def run_trials(
    scheduler: StudyScheduler,
    resources: Resources,
    folder: Path,
    *,
    prefix: str | None = None,
    say: Callable[[str], None] = print,
    trial: Callable[[dict[str, Any]], None] = _trial,
) -> None:
    """Train whatever the scheduler hands out, until nothing is left or Ctrl-C.

    folder: of the study. prefix: its address in a bucket, where checkpoints are then kept. say:
    hears what a person should know.
    trial: what a worker process does with a trial's config; a benchmark gives a shorter one.

    Tune's own files are of no use to anybody: checkpoints are the trials' own affair, and a fresh
    run folder per driver session keeps Tune from taking up an earlier one.
    """
    settings = {
        "folder": str(folder),
        "prefix": prefix,
        "num_threads": resources.num_threads,
        "rungs": list(scheduler.plan.rungs),
        "keep_last": scheduler.state.keeps_checkpoints,
    }

    faults: Faults = {}
    heartbeat = Heartbeat(own_node_is_alive, _end)
    cleaner = CheckpointCleaner(folder, prefix, scheduler.checkpoints_needed)

    def trainable(config: dict[str, Any]) -> None:
        trial(config)

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the ledger says what failed

    def needs(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        each = {"CPU": resources.cpus_per_trial, "GPU": config["run"]["gpus"]}
        return tune.PlacementGroupFactory([{key: count for key, count in each.items() if count}])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner = tune.Tuner(
            tune.with_resources(trainable, needs),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(scheduler, settings, faults),
                scheduler=TuneScheduler(scheduler, folder, faults, cleaner, say, heartbeat.check),
                num_samples=-1,
                max_concurrent_trials=resources.slots,
                reuse_actors=True,
                trial_name_creator=_own_id,
                trial_dirname_creator=_own_folder,
            ),
            run_config=tune.RunConfig(
                name=f"session{len(scheduler.state.sessions):02d}",
                storage_path=str(folder / "ray"),
                verbose=0,
                callbacks=[_Silence()],
                failure_config=tune.FailureConfig(max_failures=0),  # the scheduler tries again
            ),
        )
        try:
            with heartbeat:
                tuner.fit()
        except ClusterLost as gone:
            raise OSError(CLUSTER_GONE, f"{gone}: {GO_ON}") from None
        except Exception as error:
            if scheduler.ledger.failure is None:
                raise
            raise scheduler.ledger.failure from error  # Tune has made a text of it
        finally:
            cleaner.close()
