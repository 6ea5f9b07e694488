"""What Tune's calls become for the study's scheduler; no Ray is started."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.analysis.evidence import path_of
from study.engine import tune_adapter
from study.engine.messages import (
    MESSAGE,
    ORDER,
    BeatMessage,
    EpochMessage,
    FailureMessage,
    FaultMessage,
)
from study.engine.ray_internals import STILL_BUSY
from study.engine.tune_adapter import TuneScheduler, _fault
from study.ledger.state import State
from study.scheduler.retries import BUSY, HUNG, LOST, MEMORY, UNFIT
from study.scheduler.watchdog import LONGEST_TICK, Watchdog

LOW = """Failure # 1 (occurred at 2026-11-21_16-44-34)
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2, \
ID: cfd4) was 22.46GB used / 23.54GB limit (0.954)
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
Refer to the documentation on how to address the out of memory issue.
"""
DIED = """Failure # 1 (occurred at 2026-11-21_16-44-34)
The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit \
detail: End of file. Some common causes include: (1) the process was killed by the OOM killer due \
to high memory usage, (2) ray stop --force was called, (3) ...
"""
RAISED = """Failure # 1 (occurred at 2026-11-21_16-44-34)
ray.exceptions.RayTaskError(AcceleratorError): ray::ImplicitFunc.train()
  File "worker.py", line 1, in run
torch.AcceleratorError: CUDA error: unspecified launch failure
"""
NO_WORD = "its process died: killed, perhaps by the system for want of memory, or crashed"


@pytest.mark.parametrize(
    ("text", "cause", "reason"),
    [
        (LOW, MEMORY, "out of memory: ended by Ray, for its node was low on memory, 22.46GB of "
         "23.54GB in use"),
        (DIED, LOST, NO_WORD),
        ("", LOST, NO_WORD),
        (f"RuntimeError: {STILL_BUSY}\n", BUSY, STILL_BUSY),
        (RAISED, LOST, "torch.AcceleratorError: CUDA error: unspecified launch failure"),
    ],
)  # fmt: skip
def test_the_reason_is_one_line(tmp_path: Path, text: str, cause: str, reason: str) -> None:
    (tmp_path / "error.txt").write_text(text)
    trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"), pickled_error_file=None)
    assert _fault(trial) == FaultMessage(cause, reason)


def watchdog() -> Watchdog:
    """One that finds nobody hung."""
    return Watchdog(State(), math.inf)


class Calls:
    """A study's scheduler that notes what it is told, and lets every trial go on."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []

    def on_report(self, *given: Any, environment: Any) -> bool:
        self.made.append(("on_report", *given, environment))
        return True

    def may_go_on(self, *given: Any) -> bool:
        self.made.append(("may_go_on", *given))
        return False

    def fail(self, *given: Any, by_machine: bool) -> None:
        self.made.append(("fail", *given, by_machine))

    def fault(self, *given: Any) -> None:
        self.made.append(("fault", *given))


def waiting(tmp_path: Path, looks: list[Any]) -> tuple[TuneScheduler, list[Any]]:
    """A session with three trials that wait, and where it notes its looks for hung ones."""
    scheduler: Any = Calls()
    scheduler.budget, scheduler.closing = SimpleNamespace(is_over=False), False

    def look(occupied: Any) -> dict[str, str]:
        looks.append(occupied)
        return {}

    given: Any = (scheduler, tmp_path, {}, None, print, lambda: None, SimpleNamespace(look=look))
    adapter = TuneScheduler(*given)
    trials: list[Any] = [
        SimpleNamespace(
            config={ORDER: SimpleNamespace(trial=name)},
            status="PENDING",
            PENDING="PENDING",
            init_local_path=lambda: None,
        )
        for name in ("t0002", "t0000", "t0001")
    ]
    for trial in trials:
        adapter.on_trial_add(None, trial)
    return adapter, trials


def test_trials_start_in_the_order_in_which_they_were_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_adapter, "trials_with_process", lambda controller: [])
    adapter, trials = waiting(tmp_path, [])
    chosen = []
    for _ in range(2 * len(trials) + 1):
        first = adapter.choose_trial_to_run(None)
        assert first is adapter.choose_trial_to_run(None)
        chosen.append(first)
        if first is not None and chosen.count(first) == 2:
            first.status = "RUNNING"
    assert chosen == [trial for trial in trials for _ in range(2)] + [None]


def test_many_events_make_one_look_for_hung_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Any] = []
    now = 100.0
    monkeypatch.setattr(tune_adapter, "trials_with_process", lambda controller: [])
    monkeypatch.setattr(tune_adapter, "time", SimpleNamespace(monotonic=lambda: now))
    adapter, _ = waiting(tmp_path, looks)
    for _ in range(100):
        adapter.choose_trial_to_run(None)
    assert len(looks) == 1
    now += tune_adapter.LOOK_SECONDS
    adapter.choose_trial_to_run(None)
    assert len(looks) == 2
    assert tune_adapter.LOOK_SECONDS < LONGEST_TICK  # or the watchdog would count too few


@pytest.mark.parametrize(
    ("result", "decision", "calls"),
    [
        (
            {MESSAGE: EpochMessage(2, {"val/miou": 0.5}, environment={"device": "cpu"})},
            "CONTINUE",
            [("on_report", "t0001", 2, {"val/miou": 0.5}, {"device": "cpu"})],
        ),
        ({MESSAGE: EpochMessage(2, {}), "done": True}, "STOP", []),
        ({MESSAGE: BeatMessage("training")}, "CONTINUE", []),
        (
            {MESSAGE: BeatMessage("training", may_end=True)},
            "STOP",
            [("may_go_on", "t0001")],
        ),
        ({}, "STOP", []),
        ({MESSAGE: FailureMessage("a bug", True)}, "STOP", [("fail", "t0001", "a bug", True)]),
        ({MESSAGE: FaultMessage(MEMORY, "full")}, "STOP", [("fault", "t0001", MEMORY, "full")]),
    ],
)
def test_each_message_is_one_call(
    tmp_path: Path, result: dict[str, Any], decision: str, calls: list[tuple[Any, ...]]
) -> None:
    scheduler: Any = Calls()
    notified: list[bool] = []
    cleaner: Any = SimpleNamespace(notify=lambda: notified.append(True))
    adapter = TuneScheduler(scheduler, tmp_path, {}, cleaner, print, lambda: None, watchdog())
    trial: Any = SimpleNamespace(config={ORDER: SimpleNamespace(trial="t0001")})
    assert adapter.on_trial_result(None, trial, result) == decision
    assert scheduler.made == calls
    ended = decision == "STOP" and bool(calls) and calls[0][0] != "may_go_on"
    assert bool(notified) == ended


def test_the_evidence_is_written_and_each_trouble_is_said_once(tmp_path: Path) -> None:
    scheduler: Any = Calls()
    said: list[str] = []
    cleaner: Any = None
    adapter = TuneScheduler(scheduler, tmp_path, {}, cleaner, said.append, lambda: None, watchdog())
    trial: Any = SimpleNamespace(config={ORDER: SimpleNamespace(trial="t0001")})
    for epoch in (1, 2):
        message = EpochMessage(epoch, {}, evidence=b"npz", trouble="no room")
        adapter.on_trial_result(None, trial, {MESSAGE: message})
    assert path_of(tmp_path, "t0001").read_bytes() == b"npz"
    assert said == ["t0001's checkpoint after epoch 1 has to wait: no room"]


def test_a_trial_placed_on_a_node_that_is_found_unfit_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapter(nodes: dict[str, str]) -> tuple[TuneScheduler, dict[str, FaultMessage]]:
        faults: dict[str, FaultMessage] = {}
        nothing: Any = None
        check: Any = SimpleNamespace(why_unfit=lambda node: nodes.get(node, ""))
        watchdog: Any = SimpleNamespace(forget=lambda trial: None)
        given = (nothing, tmp_path, faults, nothing, print, lambda: None, watchdog, check)
        return TuneScheduler(*given), faults

    error = SimpleNamespace(actor_id="ab", preempted=False)
    monkeypatch.setattr(tune_adapter, "actor_error", lambda trial: error)
    monkeypatch.setattr(tune_adapter, "node_of", lambda actor_id: f"node of {actor_id}")
    monkeypatch.setattr(tune_adapter, "was_preempted", lambda actor_id: False)
    trial: Any = SimpleNamespace(
        config={ORDER: SimpleNamespace(trial="t0001")}, error_file=None, pickled_error_file=None
    )
    there, faults = adapter({"node of ab": "10.0.0.7 (gpu): it has torch 2.14.0 (here 2.15.0)"})
    there.on_trial_error(None, trial)
    reason = "its node is unfit: 10.0.0.7 (gpu): it has torch 2.14.0 (here 2.15.0)"
    assert faults == {"t0001": FaultMessage(UNFIT, reason)}
    there, faults = adapter({})
    there.on_trial_error(None, trial)
    assert faults["t0001"].cause == LOST


class Found:
    """A watchdog that finds one trial hung at every look, and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def look(self, occupied: Any) -> dict[str, str]:
        return {trial: "hung while training" for trial in occupied if trial == "t0001"}

    def heard(self, *given: str) -> None:
        self.told.append(given)

    def forget(self, trial: str) -> None:
        self.told.append((trial,))


def test_a_hung_trial_is_killed_once_and_nothing_that_it_says_later_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []
    found, scheduler = Found(), Calls()
    faults: dict[str, FaultMessage] = {}
    given: Any = (scheduler, tmp_path, faults, None, print, lambda: None, found)
    adapter = TuneScheduler(*given)
    hung, other = (
        SimpleNamespace(config={ORDER: SimpleNamespace(trial=name)}) for name in ("t0001", "t0002")
    )
    monkeypatch.setattr(tune_adapter, "trials_with_process", lambda controller: [hung, other])
    monkeypatch.setattr(
        tune_adapter, "kill_process", lambda _, trial: killed.append(trial.config[ORDER].trial)
    )
    monkeypatch.setattr(tune_adapter, "LOOK_SECONDS", 0.0)
    scheduler.budget = SimpleNamespace(is_over=False)  # type: ignore[attr-defined]
    scheduler.closing = True  # type: ignore[attr-defined]
    for _ in range(2):
        assert adapter.choose_trial_to_run(None) is None
    assert killed == ["t0001"]
    late: Any = hung
    for message in (EpochMessage(2, {}), FailureMessage("a bug", False), BeatMessage("training")):
        assert adapter.on_trial_result(None, late, {MESSAGE: message}) == "CONTINUE"
    assert scheduler.made == []
    adapter.on_trial_error(None, late)
    assert faults == {"t0001": FaultMessage(HUNG, "hung while training")}
    assert found.told == [("t0001",)]
