"""Real Ray: a trial that hangs is ended, tried again, and in the end given up; no other suffers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.test_engine import SPACE, task
from engine.test_survival import Study
from ledgers import numbers

import study
from study.core.names import COMPLETED, FAILED
from study.reporting.study_status import lines, status
from study.scheduler import retries
from study.scheduler.retries import HUNG
from study.session.finished import Finished

pytestmark = pytest.mark.ray

ray = pytest.importorskip("ray")

TIMEOUT = 15.0  # of a trial: a step takes milliseconds
QUIET_SECONDS = 3.0


@pytest.fixture(autouse=True)
def no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tests.parent}{os.pathsep}{tests}")
    yield
    ray.shutdown()


def run(
    folder: Path,
    faults: dict[str, str] | None = None,
    data_faults: dict[str, str] | None = None,
    **options: Any,
) -> Finished:
    """Run a study one trial at a time."""
    folder.mkdir()
    tree = task(folder / "builds", faults)
    kwargs = {"log": str(folder / "openings"), "faults": data_faults}
    tree["data"] = {"factory": "engine_parts:data", "kwargs": kwargs}
    return study.run_study(
        SPACE, tree, storage=folder, name="s", max_concurrent=1, trial_timeout=TIMEOUT, **options
    )


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_trial_that_hung_once_comes_to_the_numbers_of_one_that_never_did(tmp_path: Path) -> None:
    faults = {
        "2": "hang in the factory",
        "4": "hang in a step",
        "5": "hang in evaluation",
        "7": "hang in the last checkpoint",
    }
    hung = run(tmp_path / "hung", faults, {"2": "hang"}, keep_checkpoints=True).state
    assert hung.finished
    assert {trial.status for trial in hung.trials.values()} == {COMPLETED}
    found = [fault for trial in hung.trials.values() for fault in trial.faults]
    assert {fault.cause for fault in found} == {HUNG}
    stages = [fault.reason.partition(": no sign of life for ")[0] for fault in found]
    assert stages == [
        "hung while opening its data",
        "hung while loading its checkpoint and model",
        "hung while training or evaluating",
        "hung while training or evaluating",
        "hung while storing its last checkpoint and weights",
    ]
    undisturbed = run(tmp_path / "undisturbed", keep_checkpoints=True).state
    assert numbers(hung) == numbers(undisturbed)


@pytest.mark.timeout(900)
def test_a_trial_that_always_hangs_has_failed_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "TRIES", 1)
    always = dict.fromkeys(("3", "4"), "hang with the lock")
    finished = run(tmp_path / "here", always, num_trials=1)
    state = finished.state
    assert state.finished
    assert finished.exports
    first, second, *others = state.trials.values()
    assert {first.status, *(trial.status for trial in others)} == {COMPLETED}
    assert second.status == FAILED
    assert [fault.cause for fault in second.faults] == [HUNG]
    reason = "hung while training or evaluating: no sign of life for 1"
    assert second.end is not None and second.end.reason.startswith(reason)
    assert reason in "\n".join(lines(status(state, driven=False, now=0.0)))
    assert reason in (finished.folder / "report.html").read_text(encoding="utf-8")


def wait_until_quiet(ledger: Path) -> None:
    """Until a report that was under way is in the ledger: with it a session that closes would let
    its trial go, and nothing would hang."""
    size = -1
    while size != (size := ledger.stat().st_size):
        time.sleep(QUIET_SECONDS)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ctrl_c_does_not_wait_for_a_process_that_is_stopped(tmp_path: Path) -> None:
    study = Study(tmp_path, pause=0.2)
    process = study.begin("--trial-timeout", f"{TIMEOUT:g}s")
    study.wait_for_reports(1, process)
    pids = [int(line.split()[0]) for line in (tmp_path / "pids").read_text().splitlines()]
    os.kill(pids[-1], signal.SIGSTOP)
    wait_until_quiet(study.ledger)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, err) == (130, ""), out
    (stopped,) = [trial for trial in study.state.trials.values() if trial.end is None]
    assert [fault.cause for fault in stopped.faults] == [HUNG]
    assert f"{stopped.id} was lost after epoch {stopped.epochs}: hung while" in out
    assert not Path(f"/proc/{pids[-1]}").exists(), "it is gone, too"
