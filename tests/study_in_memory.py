"""A study's plan, and a state to which trials are added as a driver would."""

from __future__ import annotations

from study.core.names import REFERENCE
from study.ledger.plan import Plan
from study.ledger.records import EndRecord, ReportRecord, TrialRecord
from study.ledger.state import State
from study.scheduler.stages import Admits, next_action


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

    def add(self, stage: str, label: str = "x", source: str | None = None, seed: int = 0) -> str:
        name = f"t{len(self.state.trials):04d}"
        family = "ce" if label == "ce" or stage == REFERENCE else "recall"
        record = TrialRecord(name, 0, stage, label, family, None, {}, seed, source=source)
        self.state.apply(record)
        self.live.add(name)
        return name

    def fail(self, name: str, *, by_machine: bool) -> None:
        self.state.apply(EndRecord(name, "failed", "", 0, by_machine=by_machine))
        self.live.discard(name)

    def finish(self, name: str, status: str = "completed", miou: float = 0.5) -> None:
        self.state.apply(ReportRecord(name, 0, 4, {"val/miou": miou, "val/macc": miou}))
        self.state.apply(EndRecord(name, status, "", 4))
        self.live.discard(name)

    def next(self, **options: Admits) -> object:
        return next_action(self.plan, self.state, self.live, **options)
