"""How much of its slots a driver keeps busy, and where that ends.

    python -m benchmarks.scale [driver] [calls] [follower] [--slots N ...] [--trials-per-slot N]
                               [--stop-early] [--profile]

driver    a study with so many slots, of trials of ten epochs of a minute (each trial's own speed is
          0.8 to 1.2 of that) in the space `joint`, 126 metrics an epoch. The driver is the real
          one: `run_trials`, Tune's controller, sampler, ledger on the disk, progress lines. The
          trials are simulated in the place of Ray's calls, on a clock that runs with the driver's
          processor time and its syncs, and jumps over what it waits (`stand_in.py`). Busy share:
          the time of epochs / (time * slots), from the first proposal to the last, and from the
          moment at which all slots run. Driver's share: the part of the time in which it works.
calls     what the stand-in leaves out, on a real Ray of this machine: an epoch of a process without
          work and its report, placement groups, and the start of processes without CPU, of
          --processes: the driver's processor time for each, and how many there are in a second.
follower  reports that the process which writes to MLflow sends in a second into SQLite: one epoch
          of each of --follow trials at a time, and, as where it lags, whole trials.

`driver` and `follower` write below the system's folder for temporary files.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from benchmarks.engine import metrics

if TYPE_CHECKING:
    from study.engine.messages import TrialOrder
    from study.ledger.journal import Ledger
    from study.reporting.live import Display
    from study.scheduler.study_scheduler import StudyScheduler
    from study.tracking.projection import Projection
    from study.trials.message import EpochMessage

EPOCHS, EPOCH_S, RUNGS = 10, 60.0, (3,)
SPEEDS = (0.8, 1.2)
SLOTS = (64, 1_000)
CALLS = 300
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
    parser.add_argument("--trials-per-slot", type=float, default=2.0)
    parser.add_argument("--stop-early", action="store_true", help="with the rung at epoch 3")
    parser.add_argument("--profile", action="store_true", help="of the driver, by own time")
    parser.add_argument("--processes", type=int, default=20)
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
    """Run a study with so many slots until all of its trials are begun, and end it there."""
    from benchmarks.stand_in import DriverClock, Farm
    from study.engine import cluster
    from study.engine.tuner import run_trials
    from study.ledger.journal import Ledger
    from study.ledger.records import Record, TrialRecord

    resources = cluster.Resources(cluster.connect("local"), 1.0, 0.0, slots)
    most = round(slots * options.trials_per_slot)
    with tempfile.TemporaryDirectory() as folder:
        clock = DriverClock()
        farm = Farm(clock, _train)
        farm.hold(slots)
        profile = cProfile.Profile() if options.profile else None
        with farm.in_place_of_ray(), open(Path(folder) / "lines", "w", encoding="utf-8") as lines:
            ledger = Ledger(Path(folder) / "study")
            scheduler, display = _begin(ledger, slots, 2 * most, options.stop_early, clock, lines)
            began, worked = clock(), clock.busy

            def stop(record: Record) -> None:
                if isinstance(record, TrialRecord) and record.number == most - 1:
                    scheduler.close()

            scheduler.listeners = (display.on, stop)
            with profile or nullcontext():
                run_trials(scheduler, resources, Path(folder) / "study", say=display.say)
            ledger.close()
        size = ledger.path.stat().st_size
    cluster.disconnect()
    if profile is not None:
        for order, count in (("tottime", PROFILED), ("cumtime", 2 * PROFILED)):
            pstats.Stats(profile, stream=sys.stdout).sort_stats(order).print_stats(count)
    trials, reports = [*scheduler.state.trials.values()], scheduler.state.num_epochs
    until = trials[-1].started
    full = sorted(start for start, _ in farm.trained)[slots - 1]
    return {
        "slots": slots,
        "trials": len(trials),
        "hours": (until - began) / 3600,
        "busy share": farm.busy(began, until) / (slots * (until - began)),
        "busy share, once all slots run": farm.busy(full, until) / (slots * (until - full)),
        "until all slots run, s": full - began,
        "reports a second": reports / (clock() - began),
        "driver's share of the time": (clock.busy - worked) / (clock() - began),
        "of it syncs of the ledger": clock.sync_s / (clock.busy - worked),
        "driver, ms per report": 1000 * (clock.busy - worked) / reports,
        "ledger, MB per 1,000 trials": size / len(trials) / 1000,
        "largest resident size, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def _begin(
    ledger: Ledger,
    slots: int,
    trials: int,
    stop_early: bool,
    clock: Callable[[], float],
    lines: TextIO,
) -> tuple[StudyScheduler, Display]:
    """A study of so many trials in the space `joint`, and what shows its lines."""
    from study.config.task import load_task
    from study.ledger.records import SessionRecord, StudyRecord
    from study.reporting.live import Display
    from study.scheduler.planning import make_plan
    from study.scheduler.study_scheduler import StudyScheduler
    from study.space.search_space import load_space

    space, task = load_space("joint"), load_task("synthetic").config
    plan = make_plan(space, task, num_trials=trials, seed=0)
    plan = replace(plan, epochs=EPOCHS, rungs=RUNGS if stop_early else ())
    data = {"class_names": [], "num_images": {}, "class_fraction": [], "fingerprint": ""}
    tree, settings = task.model_dump(), plan.as_dict()
    ledger.append(StudyRecord("scale", 0, "scale", tree, "joint", {}, settings, data, {}))
    ledger.append(SessionRecord(0, "simulated", slots, 1.0, 0.0, ""))
    display = Display(plan, ledger.state, lines)
    return StudyScheduler(ledger, plan, space, task, slots=slots, clock=clock), display


def _train(order: TrialOrder, epoch: int) -> tuple[float, EpochMessage]:
    from study.trials.message import EpochMessage

    rng = random.Random(order.trial)
    quality, seconds = rng.random(), EPOCH_S * rng.uniform(*SPEEDS)
    found = metrics(quality, epoch, epochs=EPOCHS, seconds=seconds)
    environment = ENVIRONMENT if epoch == order.reported + 1 else None
    return seconds, EpochMessage(epoch, found, environment=environment)


# --- calls ---------------------------------------------------------------------------------------


def _calls(processes: int) -> None:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from study.engine import cluster

    cluster.where("local")  # Ray's settings of a driver
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        resources={"slot": processes},
    )

    class Trial:
        def train(self) -> Any:
            from study.trials.message import EpochMessage

            return {"message": EpochMessage(1, metrics(0.5, 1))}

    kind: Any = ray.remote(Trial)
    first = kind.options(num_cpus=0).remote()
    ray.get(first.train.remote())

    def measured(what: str, count: int, call: Callable[[], Any]) -> Any:
        wall, worked = time.perf_counter(), time.thread_time()
        found = call()
        worked, wall = time.thread_time() - worked, time.perf_counter() - wall
        print(f"| {what} | {1000 * worked / count:.3g} | {count / wall:.3g} |")
        return found

    def report() -> None:
        for _ in range(CALLS):
            ray.get(ray.wait([first.train.remote()])[0][0])

    def room() -> list[Any]:
        groups = [ray.util.placement_group([{"slot": 1}]) for _ in range(processes)]
        ray.get([group.ready() for group in groups])
        return groups

    def start() -> None:
        places = [PlacementGroupSchedulingStrategy(placement_group=group) for group in groups]
        options = [
            {"scheduling_strategy": one, "num_cpus": 0, "resources": {"slot": 1}} for one in places
        ]
        begun = [kind.options(**given).remote() for given in options]
        ray.get([one.__ray_ready__.remote() for one in begun])

    print("\n| call of Ray | driver's processor time, ms | in a second |\n|---|---|---|")
    measured("an epoch of one process, and its report", CALLS, report)
    groups = measured("a placement group", processes, room)
    measured("a process", processes, start)
    ray.shutdown()


# --- follower ------------------------------------------------------------------------------------


def _follower(trials: int) -> None:
    from study.ledger.journal import Ledger
    from study.ledger.records import TrialRecord
    from study.tracking.projection import Projection

    with tempfile.TemporaryDirectory() as name, open(Path(name) / "lines", "w") as lines:
        folder = Path(name)
        ledger = Ledger(folder / "study")
        scheduler, _ = _begin(ledger, trials, 2 * trials, False, time.monotonic, lines)
        live, late = (
            Projection(folder / "study", f"sqlite:///{folder}/{name}.db")
            for name in ("live", "late")
        )
        for one in (live, late):
            _sent(one)  # the database is made
        begun = [scheduler.suggest() for _ in range(trials)]
        made = _sent(live)
        as_they_come = np.zeros(2)
        for epoch in range(1, EPOCHS + 1):
            for trial in begun:
                assert isinstance(trial, TrialRecord)
                quality = random.Random(trial.trial).random()
                found = metrics(quality, epoch, epochs=EPOCHS, seconds=EPOCH_S)
                scheduler.on_report(trial.trial, epoch, found)
            as_they_come += _sent(live)
        whole = _sent(late)
        ledger.close()
        size = (folder / "live.db").stat().st_size
    print("\n| MLflow on SQLite, in a second | by the clock | by processor time |\n|---|---|---|")
    for what, count, (wall, worked) in (
        ("runs of trials that are made", trials, made),
        ("reports, one epoch of each trial at a time", trials * EPOCHS, as_they_come),
        ("reports, whole trials at a time", trials * EPOCHS, whole),
    ):
        print(f"| {what} | {count / wall:.3g} | {count / worked:.3g} |")
    print(f"\ndatabase: {size / trials / 1000:.3g} MB per 1,000 trials")


def _sent(projection: Projection) -> np.ndarray:
    """Send what is new in the ledger; return the seconds that took, and those of the processor."""
    before = np.array([time.perf_counter(), time.process_time()])
    projection.read()
    while not projection.push(live=True):
        pass
    return np.array([time.perf_counter(), time.process_time()]) - before


if __name__ == "__main__":
    main()
