"""A driver without Ray and without training: the scheduler on made-up learning curves."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from study.config.task import Task, load_task
from study.core.names import CONFIRM
from study.ledger.journal import LEDGER, Ledger
from study.ledger.plan import Plan
from study.ledger.records import StudyRecord, TrialRecord
from study.scheduler.planning import amended, make_plan
from study.scheduler.stages import Done
from study.scheduler.study_scheduler import StudyScheduler
from study.scheduler.teachers import NO_TEACHERS
from study.simulation.driver import Clock, Epoch, drive
from study.space.search_space import SearchSpace, load_space

Curve = Callable[[TrialRecord, int], dict[str, float]]
EPOCH = 2.0
Cost = Callable[[TrialRecord, int, float], float]


def curve(record: TrialRecord, epoch: int) -> dict[str, float]:
    """A saturating curve whose end depends on the config, and a little on the seed."""
    config = {key: value for key, value in record.config.items() if key != "task"}
    rng = np.random.default_rng(zlib.crc32(json.dumps(config, sort_keys=True).encode()))
    quality = rng.uniform(0.2, 0.6)
    noise = np.random.default_rng([record.seed, epoch]).normal(0, 0.01)
    share = 1 - math.exp(-epoch / 3)
    miou, macc = quality * share + noise, (0.9 - quality / 2) * share + noise
    return {
        **{"val/miou": miou, "val/macc": macc, "time/epoch_s": 2.0},
        **{"val/tuned/miou": miou, "val/tuned_macc/macc": macc},
    }


def judged(record: TrialRecord, epoch: int) -> dict[str, float]:
    """The curve; a confirmation has test metrics, too."""
    found = curve(record, epoch)
    test = {key.replace("val", "test"): item for key, item in found.items() if "val" in key}
    return {**found, **(test if record.stage == CONFIRM else {})}


class Driver:
    """Trains `slots` trials in turn, an epoch each, as a cluster would."""

    def __init__(
        self,
        folder: Path,
        metrics: Curve = curve,
        target: Task | None = None,
        **options: Any,
    ) -> None:
        self.metrics = metrics
        self.task: Task = load_task("synthetic").config
        self.space: SearchSpace = load_space(options.pop("space", "joint"))
        self.plan: Plan = make_plan(
            self.space,
            self.task,
            target=target,
            num_trials=None,
            seed=0,
            teachers=options.get("teachers", NO_TEACHERS),
        )
        self.ledger = Ledger(folder)
        if self.ledger.state.study is None:
            plan = self.plan.as_dict()
            first = StudyRecord("s", 0, "synthetic", {}, "joint", {}, plan, {}, {})
            if target is not None:
                tree = target.model_dump()
                first = replace(first, confirm_task_name="big", confirm_task=tree, confirm_data={})
            self.ledger.append(first)
        self.scheduler = StudyScheduler(
            self.ledger, self.plan, self.space, self.task, target=target, **options
        )

    def lost(self, record: TrialRecord) -> bool:
        """Whether the machine fails this trial."""
        return False

    def run(self, *, kill_after: int | None = None) -> None:
        reports = 0
        running: list[tuple[TrialRecord, int]] = []
        while True:
            while len(running) < self.scheduler.slots:
                step = self.scheduler.suggest()
                if not isinstance(step, TrialRecord):
                    break
                done = self.ledger.state.trials[step.trial].epochs if step.attempt else 0
                running.append((step, done))
            if not running:
                assert isinstance(step, Done)
                break
            record, epoch = running.pop(0)
            reports += 1
            if self.lost(record):
                self.scheduler.fail(record.trial, "the node is gone", by_machine=True)
            elif self.scheduler.on_report(record.trial, epoch + 1, self.metrics(record, epoch + 1)):
                running.append((record, epoch + 1))
            if kill_after is not None and reports >= kill_after:
                break
        self.ledger.close()


class Continued(Driver):
    """A session that changes the study in a folder before it goes on."""

    def __init__(
        self,
        folder: Path,
        more: int = 0,
        changed: Any = None,
        longer: int | None = None,
        ablate: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(folder, judged, **options)
        options.pop("space", None)
        known = self.ledger.state.study
        assert known is not None
        self.before = Plan.from_dict(known.plan)
        self.plan, self.space, record = amended(
            self.before,
            self.space,
            self.ledger.state,
            more,
            changed,
            longer=longer,
            ablate=ablate,
        )
        self.record = record
        self.ledger.append(record)
        self.scheduler = type(self.scheduler)(
            self.ledger, self.plan, self.space, self.task, **options
        )


def even(record: TrialRecord, epoch: int, now: float) -> float:
    """Seconds of a trial's epoch that begins now."""
    return EPOCH


class Timed(Driver):
    """Slots that work at the same time, by the event clock of the simulator."""

    def __init__(self, folder: Path, cost: Cost = even, **options: Any) -> None:
        self.clock = Clock(100.0)
        self.cost = cost
        super().__init__(folder, clock=self.clock, **options)

    def run_session(self) -> float:
        """Until the scheduler has nothing more; the seconds that went by."""
        start = self.clock.now

        def train(record: TrialRecord, epoch: int, now: float) -> Epoch:
            seconds = self.cost(record, epoch, now - start)
            return Epoch(seconds, {**curve(record, epoch), "time/epoch_s": seconds})

        drive(self.scheduler, self.clock, train)
        self.ledger.close()
        return self.clock.now - start


def lines_without_times(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]
    left_out = ("time", "check")
    return [{key: value for key, value in line.items() if key not in left_out} for line in lines]
