"""What a study costs beside its trials' own training, and whether that grows with the study.

    python -m benchmarks.engine [overhead] [growth] [tracking] [study NAME] [--storage DIR]

overhead  a toy whose epochs are naps of 50 ms, 24 trials of 8 epochs, a rung at the third, 44
          metrics an epoch as a task of 11 classes has them, MLflow on SQLite, two slots; ours
          beside the usual script (a function trainable that imports torch, ASHAScheduler,
          OptunaSearch, MLflowLoggerCallback), each in a process of its own. From the first report
          to the end of the last trial: wall * slots / naps, and the overhead per trial
          (wall * slots - naps) / trials. Driver time per report is what Tune's controller spends
          on one: scheduler, searcher, callbacks and, for ours, ledger. Start-up is what comes
          before the first report, the rest until everything is in MLflow what comes after.
growth    the scheduler without Ray on 32 made-up slots, 100, 1,000 and 5,000 trials of the joint
          space, the same metrics: time of a proposal, of one by the sampler's model, of a report,
          of reading the ledger again; ledger per trial; resident memory; and 5,000 to 100.
tracking  the ledger of a study of 40 such trials written to a real MLflow server on SQLite: time
          and requests per trial when it is empty, and when it holds everything.
study     of a finished study: wall time from its first report to its last over its epochs' own
          time divided by the slots.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EPOCHS, RUNG, NAP, TRIALS, SLOTS = 8, 3, 0.05, 24, 2
SIZES = (100, 1_000, 5_000)
MEANS = ("miou", "macc", "mprec", "acc", "fwiou", "miou_image", "miou_class", "miou_worst5")
CLASSES = ("road", "sky", "tree", "car", "pole", "sign", "person", "bike", "fence", "wall", "bus")


def metrics(
    quality: float, epoch: int, *, epochs: int = EPOCHS, seconds: float = NAP
) -> dict[str, float]:
    """What an epoch of a task of 11 classes reports: fractions that rise to `quality`."""
    found = {"train/loss": 1 / epoch, "lr": 0.01 / epoch, "time/epoch_s": seconds}
    for rule in ("", "tuned/", "tuned_macc/"):
        found |= {f"val/{rule}{key}": quality * epoch / epochs for key in MEANS}
        for key in ("iou", "recall", "precision"):
            found |= {f"val/{rule}{key}/{name}": quality * epoch / epochs for name in CLASSES}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["overhead", "growth"])
    parser.add_argument("--storage", type=Path, default=Path("studies"))
    options = parser.parse_args()
    if options.what[:1] == ["_toy"]:
        print(json.dumps({"ours": _ours, "usual": _usual}[options.what[1]]()))
    elif options.what[:1] == ["_growth"]:
        print(json.dumps(_grow(int(options.what[1]))))
    elif options.what[:1] == ["study"]:
        _study(options.what[1], options.storage)
    else:
        for what in options.what:
            {"overhead": _overhead, "growth": _growth, "tracking": _tracking}[what]()


def _in_a_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.engine", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- overhead ------------------------------------------------------------------------------------


def _overhead() -> None:
    ours, usual = (_in_a_process("_toy", name) for name in ("ours", "usual"))
    print("| | ours | usual script | times less |\n|---|---|---|---|")
    for key, name in (
        ("trial_s", "overhead per trial, s"),
        ("report_ms", "driver time per report, median, ms"),
        ("wall", "wall time / ideal"),
        ("start_s", "start-up, s"),
        ("rest_s", "from the last trial's end until all is in MLflow, s"),
    ):
        ratio = f"{usual[key] / ours[key]:.0f}" if key in ("trial_s", "report_ms") else ""
        print(f"| {name} | {ours[key]:.3g} | {usual[key]:.3g} | {ratio} |")


class _Watch:
    """Times what Tune's controller does with each report."""

    def __init__(self) -> None:
        from ray.tune.execution.tune_controller import TuneController

        self.seconds: list[float] = []
        self.first = self.last = 0.0
        process = TuneController._process_trial_result

        def timed(controller: Any, trial: Any, result: Any) -> Any:
            start = time.perf_counter()
            self.first = self.first or start
            try:
                return process(controller, trial, result)
            finally:
                self.last = time.perf_counter()
                self.seconds.append(self.last - start)

        setattr(TuneController, "_process_trial_result", timed)  # noqa: B010

    def found(self, start: float, naps: float, trials: int) -> dict[str, float]:
        wall = self.last - self.first
        return {
            "trial_s": (wall * SLOTS - naps) / trials,
            "report_ms": 1000 * statistics.median(self.seconds),
            "wall": wall * SLOTS / naps,
            "start_s": self.first - start,
            "rest_s": time.perf_counter() - self.last,
        }


def _ours() -> dict[str, float]:
    from study import tracking
    from study.engine import cluster
    from study.engine.tuner import run_trials
    from study.ledger.journal import Ledger
    from study.scheduler.study_scheduler import StudyScheduler

    folder = Path(tempfile.mkdtemp()) / "toy"
    name = cluster.connect("local")
    resources = cluster.fit(
        name, [{"CPU": SLOTS}], gpus_per_trial=0, cpus_per_trial=None, max_concurrent=SLOTS
    )
    ledger = Ledger(folder)
    plan, space, task = _begin(ledger, TRIALS)
    scheduler = StudyScheduler(ledger, plan, space, task, slots=SLOTS)
    sidecar = tracking.start(folder, f"sqlite:///{folder}/mlflow.db")
    watch, start = _Watch(), time.perf_counter()
    run_trials(scheduler, resources, folder, work=_nap)
    unsent = sidecar.close()
    assert unsent == 0, f"{unsent} lines are not in MLflow"
    trials = scheduler.state.trials.values()
    found = watch.found(start, NAP * sum(len(trial.reports) for trial in trials), len(trials))
    cluster.disconnect()
    return found


def _nap(order: Any) -> None:
    import torch  # noqa: F401
    from ray import tune

    from study.engine.messages import MESSAGE, EpochMessage

    quality = random.Random(order.trial).random()
    for epoch in range(1, EPOCHS + 1):
        time.sleep(NAP)
        tune.report({MESSAGE: EpochMessage(epoch, metrics(quality, epoch))})


def _usual() -> dict[str, float]:
    import optuna
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(tempfile.mkdtemp())
    ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False)

    def trainable(config: dict[str, Any]) -> None:
        import torch  # noqa: F401

        for epoch in range(1, EPOCHS + 1):
            time.sleep(NAP)
            tune.report(metrics(config["x"], epoch))

    watch, start = _Watch(), time.perf_counter()
    results = tune.Tuner(
        trainable,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="val/miou",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=RUNG, reduction_factor=3),
            num_samples=TRIALS,
            max_concurrent_trials=SLOTS,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="toy"
                )
            ],
        ),
    ).fit()
    each = [results[index].metrics or {} for index in range(len(results))]
    naps = NAP * sum(metrics["training_iteration"] for metrics in each)
    return watch.found(start, naps, len(results))


# --- growth --------------------------------------------------------------------------------------


def _growth() -> None:
    rows = {size: _in_a_process("_growth", str(size)) for size in SIZES}
    first, last = SIZES[0], SIZES[-1]
    print("\n| trials | " + " | ".join(f"{size:,}" for size in SIZES) + " | last / first |")
    print("|---" * (2 + len(SIZES)) + "|")
    for key in rows[first]:
        cells = " | ".join(f"{rows[size][key]:.3g}" for size in SIZES)
        print(f"| {key} | {cells} | {rows[last][key] / rows[first][key]:.2f} |")


def _grow(size: int) -> dict[str, float]:
    from study.ledger.journal import Ledger, replay
    from study.ledger.records import TrialRecord
    from study.scheduler.stages import Done
    from study.scheduler.study_scheduler import StudyScheduler

    ledger = Ledger(Path(tempfile.mkdtemp()) / "toy")
    plan, space, task = _begin(ledger, size)
    scheduler = StudyScheduler(ledger, plan, space, task, slots=32)
    rng, now = random.Random(0), 0.0
    proposals: list[tuple[float, bool]] = []
    reports: list[float] = []
    events: list[tuple[float, str, int]] = []

    def hand_out() -> bool:
        """Whether there may be more."""
        start = time.process_time()
        step = scheduler.suggest()
        if not isinstance(step, TrialRecord):
            return not isinstance(step, Done)
        proposals.append((time.process_time() - start, step.proposed_by == "model"))
        heapq.heappush(events, (now + 1 + rng.random() / 5, step.trial, 1))
        return True

    more = True
    while True:
        while more and len(scheduler.live) < scheduler.slots:
            before = len(events)
            more = hand_out()
            if len(events) == before:
                break
        if not events:
            break
        now, trial, epoch = heapq.heappop(events)
        reported = metrics(random.Random(trial).random(), epoch)
        start = time.process_time()
        goes_on = scheduler.on_report(trial, epoch, reported)
        reports.append(time.process_time() - start)
        if goes_on:
            heapq.heappush(events, (now + 1 + rng.random() / 5, trial, epoch + 1))
        else:
            scheduler.release(trial)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = len(scheduler.state.trials)
    ledger.close()
    start = time.process_time()
    assert len(replay(ledger.path).trials) == count
    again = time.process_time() - start
    modelled = [seconds for seconds, model in proposals if model][-200:]
    return {
        "proposal, mean ms": 1000 * statistics.fmean(seconds for seconds, _ in proposals),
        "proposal of the model, mean of the last 200, ms": 1000 * statistics.fmean(modelled),
        "report, mean ms": 1000 * statistics.fmean(reports),
        "ledger, kB per trial": ledger.path.stat().st_size / count / 1000,
        "reading the ledger again, ms per trial": 1000 * again / count,
        "largest resident size, MB": largest / 1000,
    }


def _begin(ledger: Any, trials: int) -> tuple[Any, Any, Any]:
    from study.config.task import load_task
    from study.ledger.plan import Plan
    from study.ledger.records import SessionRecord, StudyRecord
    from study.space.search_space import load_space

    space, task = load_space("joint"), load_task("synthetic").config
    plan = Plan(
        seed=0,
        epochs=EPOCHS,
        objectives=space.settings.objectives,
        sampler="tpe",
        num_trials=trials,
        reference_trials=max(4, trials // 4),
        baselines=(),
        rungs=(RUNG,),
        reduction_factor=3,
        split_by=None,
        confirm_top=0,
        confirm_seeds=0,
    )
    data = {"class_names": [], "num_images": {}, "class_fraction": [], "fingerprint": ""}
    ledger.append(
        StudyRecord("toy", 0, "toy", task.model_dump(), "joint", {}, plan.as_dict(), data, {})
    )
    ledger.append(SessionRecord(0, "a toy", SLOTS, 1.0, 0.0, ""))
    return plan, space, task


# --- tracking ------------------------------------------------------------------------------------


def _tracking() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tracking_server import Proxy, Server

    from study.ledger.journal import Ledger
    from study.ledger.records import TrialRecord
    from study.scheduler.study_scheduler import StudyScheduler
    from study.tracking.projection import Projection

    folder = Path(tempfile.mkdtemp())
    ledger = Ledger(folder / "toy")
    scheduler = StudyScheduler(ledger, *_begin(ledger, 40))
    while isinstance(step := scheduler.suggest(), TrialRecord):
        quality = random.Random(step.trial).random()
        epoch = 1
        while scheduler.on_report(step.trial, epoch, metrics(quality, epoch)):
            epoch += 1
        scheduler.release(step.trial)
    count = len(scheduler.state.trials)
    ledger.close()
    server = Server(folder / "server")
    try:
        server.wait()
        proxy = Proxy(server)
        print("\n| MLflow | seconds per trial | requests per trial |\n|---|---|---|")
        for what in ("empty", "complete"):
            proxy.requests.clear()
            start = time.perf_counter()
            projection = Projection(folder / "toy", proxy.uri)
            while not projection.finish():
                pass
            seconds = (time.perf_counter() - start) / count
            print(f"| {what} | {seconds:.3g} | {len(proxy.requests) / count:.2g} |")
    finally:
        server.close()


# --- a study -------------------------------------------------------------------------------------


def _study(name: str, storage: Path) -> None:
    from study.storage.studies import find, load

    state = load(find(name, storage))
    trials = state.trials.values()
    times = [at for trial in trials for at in trial.report_times.values()]
    own = sum(report["time/epoch_s"] for trial in trials for report in trial.reports.values())
    slots = state.sessions[-1].slots
    ratio = (max(times) - min(times)) / (own / slots)
    print(f"wall time from the first report to the last / own time of the epochs: {ratio:.3f}")


if __name__ == "__main__":
    main()
