"""How much of its slots a driver keeps busy, and where that ends.

    python -m benchmarks.scale [driver] [calls] [follower] [--slots N ...] [--trials-per-slot N]
                               [--stop-early] [--profile]

driver    a study with so many slots, of trials of ten epochs of a minute (each trial's own speed is
          from 0.8 to 1.2 of that) in the space `joint`, 126 metrics an epoch. The driver is the real
          one: `run_trials`, Tune's controller, sampler, rungs, ledger on the disk, progress lines.
          The trials are simulated in the place of Ray's calls, on a clock that runs with the
          driver's processor time and its syncs, and jumps over what it waits (`stand_in.py`).
          Busy share: the time of epochs / (time * slots), from the first proposal to the last, and
          from the moment at which all slots run. Driver's share: of that time it works.
calls     what the stand-in leaves out, on a real Ray of this machine: the driver's processor time
          for a trial's start and for a report, and how many processes without CPU start in a
          second, of --processes.
follower  reports that the process which writes to MLflow sends in a second into SQLite: as they
          come, one epoch of each of --follow trials at a time, and when it lags, whole trials.

`driver` and `follower` write below the system's folder for temporary files.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.engine import metrics

EPOCHS, EPOCH_S, RUNGS = 10, 60.0, (3,)
SLOTS = (64, 1_000)
TARGET = 0.95
PROFILED = 30  # functions
ENVIRONMENT = {
    "device": "cuda:0",
    "device_name": "a made-up GPU",
    "precision": "bf16",
    "num_threads": 8,
    "python": "3.12.3",
    "versions": {"torch": "2.9.0", "numpy": "2.4.6", "timm": "1.0.31"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["driver", "calls", "follower"])
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS)
    parser.add_argument("--trials-per-slot", type=int, default=4)
    parser.add_argument("--stop-early", action="store_true", help="with the rung at epoch 3")
    parser.add_argument("--profile", action="store_true", help="of the driver, by own time")
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--follow", type=int, default=100)
    options = parser.parse_args()
    for what in options.what:
        if what == "driver":
            table([_in_a_process(slots, options) for slots in options.slots])
        elif what == "_driver":
            print(json.dumps(drive(options.slots[0], options)))
        elif what == "calls":
            _calls(options.processes)
        elif what == "follower":
            _follower(options.follow)
        else:
            parser.error(f"driver, calls or follower, not {what!r}")


def _in_a_process(slots: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "_driver", "--slots", str(slots)]
    command += ["--trials-per-slot", str(options.trials_per_slot)]
    command += ["--stop-early"] * options.stop_early + ["--profile"] * options.profile
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    print("\n".join(lines))
    found: dict[str, float] = json.loads(last)
    return found


def table(rows: Sequence[dict[str, float]]) -> None:
    """Print what was found, a column for each number of slots."""
    print("| slots | " + " | ".join(f"{row['slots']:,}" for row in rows) + " |")
    print("|---" * (1 + len(rows)) + "|")
    for key in rows[0]:
        if key != "slots":
            print(f"| {key} | " + " | ".join(f"{row[key]:.4g}" for row in rows) + " |")


# --- driver --------------------------------------------------------------------------------------


def drive(slots: int, options: argparse.Namespace) -> dict[str, float]:
    """Run a study with so many slots until all but the last trials of each are begun."""
    from benchmarks.stand_in import DriverClock, Farm
    from study.config.task import load_task
    from study.engine import cluster
    from study.engine.tuner import run_trials
    from study.ledger.journal import Ledger
    from study.ledger.records import SessionRecord, StudyRecord, TrialRecord
    from study.reporting.live import Display
    from study.scheduler.planning import make_plan
    from study.scheduler.study_scheduler import StudyScheduler
    from study.space.search_space import load_space
    from study.trials.message import EpochMessage

    name = cluster.connect("local")
    resources = cluster.Resources(name, 1.0, 0.0, slots)
    space, task = load_space("joint"), load_task("synthetic").config
    most = slots * options.trials_per_slot
    plan = replace(
        make_plan(space, task, num_trials=2 * most, seed=0),
        epochs=EPOCHS,
        rungs=RUNGS if options.stop_early else (),
    )

    def train(order: Any, epoch: int) -> tuple[float, EpochMessage]:
        rng = random.Random(order.trial)
        quality, seconds = rng.random(), EPOCH_S * rng.uniform(0.8, 1.2)
        found = metrics(quality, epoch, epochs=EPOCHS, seconds=seconds)
        environment = ENVIRONMENT if epoch == order.reported + 1 else None
        return seconds, EpochMessage(epoch, found, environment=environment)

    proposals: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        clock = DriverClock()
        farm = Farm(clock, train)
        farm.hold(slots)
        with farm.in_place_of_ray(), open(Path(folder) / "lines", "w") as lines:
            ledger = Ledger(Path(folder) / "study")
            data = {"class_names": [], "num_images": {}, "class_fraction": [], "fingerprint": ""}
            ledger.append(
                StudyRecord(
                    "scale", 0, "scale", task.model_dump(), "joint", {}, plan.as_dict(), data, {}
                )
            )
            ledger.append(SessionRecord(0, "simulated", slots, 1.0, 0.0, ""))
            display = Display(plan, ledger.state, lines)
            scheduler = StudyScheduler(ledger, plan, space, task, slots=slots, clock=clock)

            def stop(record: Any) -> None:
                if isinstance(record, TrialRecord) and record.number == most - 1:
                    scheduler.close()

            scheduler.listeners = (display.on, stop)
            profile = cProfile.Profile() if options.profile else None
            began, worked = clock(), clock.busy
            suggest = scheduler.suggest
            def timed():
                start = clock()
                found = suggest()
                if isinstance(found, TrialRecord):
                    proposals.append(clock() - start)
                return found
            scheduler.suggest = timed  # type: ignore
            with profile or nullcontext():
                run_trials(scheduler, resources, Path(folder) / "study", say=display.say)
            ledger.close()
        if profile is not None:
            text = io.StringIO()
            pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(PROFILED)
            pstats.Stats(profile, stream=text).sort_stats("cumtime").print_stats(2 * PROFILED)
            print(text.getvalue())
        size = ledger.path.stat().st_size
    cluster.disconnect()
    trials = [*scheduler.state.trials.values()]
    until = trials[-1].started
    full = sorted(start for start, _ in farm.trained)[slots - 1]
    window = until - began
    reports = scheduler.state.num_epochs
    return {
        "slots": slots,
        "busy share": farm.busy(began, until) / (slots * window),
        "busy share, once all slots run": farm.busy(full, until) / (slots * (until - full)),
        "until all slots run, s": full - began,
        "driver's share": (clock.busy - worked) / (clock() - began),
        "of it syncs": clock.sync_s / (clock.busy - worked),
        "hours": window / 3600,
        "trials": len(trials),
        "reports a second": reports / (clock() - began),
        "driver, ms per report": 1000 * (clock.busy - worked) / reports,
        "proposal, mean ms": 1000 * statistics.fmean(proposals),
        "proposal, mean of last 100": 1000 * statistics.fmean(proposals[-100:]),
        "ledger, MB per 1,000 trials": size / len(trials) / 1000,
        "largest resident size, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


# --- calls ---------------------------------------------------------------------------------------


def _calls(processes: int) -> None:
    pass


def _follower(trials: int) -> None:
    pass


if __name__ == "__main__":
    main()
