"""A study's plan, and a state to which trials are added as a driver would."""

from __future__ import annotations

from typing import Any

from study.core.names import CONFIRM, REFERENCE
from study.ledger.plan import Plan
from study.ledger.records import EndRecord, ReportRecord, TrialRecord
from study.ledger.state import State
from study.scheduler.stages import next_action


def plan(**changes: object) -> Plan:
    fields: dict[str, object] = {
        "seed": 0,
        "epochs": 4,
        "objectives": ("val/miou", "val/macc"),
        "sampler": "tpe",
        "num_trials": 16,
        "reference_trials": 3,
        "baselines": ("ce", "recall"),
        "rungs": (2,),
        "reduction_factor": 3,
        "split_by": None,
        "confirm_top": 2,
        "confirm_seeds": 3,
    }
    return Plan(**{**fields, **changes})  # type: ignore[arg-type]


class Study:
    """A state to which trials are added as a driver would."""

    def __init__(self, the_plan: Plan) -> None:
        self.plan = the_plan
        self.state = State()
        self.live: set[str] = set()

    def add(
        self,
        stage: str,
        label: str = "x",
        source: str | None = None,
        seed: int = 0,
        budget: int = 1,
        ablated: str = "",
        config: dict[str, Any] | None = None,
    ) -> str:
        name = f"t{len(self.state.trials):04d}"
        family = "ce" if label == "ce" or stage == REFERENCE else "recall"
        record = TrialRecord(
            name, 0, stage, label, family, None, config or {}, seed,
            source=source, budget=budget, ablated=ablated,
        )  # fmt: skip
        self.state.apply(record)
        self.live.add(name)
        return name

    def fail(self, name: str, *, by_machine: bool) -> None:
        self.state.apply(EndRecord(name, "failed", "", 0, by_machine=by_machine))
        self.live.discard(name)

    def finish(self, name: str, status: str = "completed", miou: float = 0.5) -> None:
        trial = self.state.trials[name]
        splits = ("val", "test") if trial.stage == CONFIRM else ("val",)
        metrics = {f"{split}/{key}": miou for split in splits for key in ("miou", "macc")}
        epochs = self.plan.epochs * trial.budget
        self.state.apply(ReportRecord(name, 0, epochs, metrics))
        self.state.apply(EndRecord(name, status, "", epochs))
        self.live.discard(name)

    def next(self, **options: Any) -> object:
        return next_action(self.plan, self.state, self.live, **options)
