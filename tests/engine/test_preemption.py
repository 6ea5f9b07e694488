"""Real nodes: on the notice of the spot market a study leaves one and goes on elsewhere."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine.test_spot import Service

from benchmarks.raylets import Cluster, kill
from study.core.names import COMPLETED
from study.engine.spot import ENDPOINT
from study.ledger.journal import LEDGER, read
from study.ledger.records import FaultRecord, ReportRecord, TrialRecord
from study.ledger.state import State, fold
from study.scheduler.retries import PREEMPTED

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
DOOMED, SAFE = "127.0.0.2", "127.0.0.3"
SPACE: dict[str, Any] = {
    "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
    "study": {
        "num_trials": 1,
        "reference_trials": 1,
        "baselines": ["ce"],
        "rungs": None,
        "confirm": {"top": 1, "num_seeds": 1},
    },
}
EPOCHS = 20
PATIENCE = 120.0


def begin(cluster: Cluster, folder: Path) -> subprocess.Popen[str]:
    task = yaml.safe_load((ROOT / "study" / "tasks" / "tiny.yaml").read_text())
    task |= {"budget": {"epochs": EPOCHS}}
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    files = ("space.yaml", "--task", "task.yaml", "--name", "s")
    return subprocess.Popen(
        [sys.executable, "-m", "study.run", *files, "--address", cluster.address],
        cwd=folder,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def state(folder: Path) -> State:
    path = folder / "studies" / "s" / LEDGER
    return fold(read(path)) if path.exists() else State()


def wait(driver: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        if driver.poll() is not None or time.monotonic() > end:
            kill(driver.pid)
            raise AssertionError(driver.communicate()[0])
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_on_the_notice_a_trial_leaves_its_node_waits_for_another_and_loses_no_epoch(
    tmp_path: Path, cluster: Cluster, started: list[subprocess.Popen[str]]
) -> None:
    service = Service()
    doomed = cluster.join("--num-cpus=1", f"--node-ip-address={DOOMED}")
    driver = begin(cluster, tmp_path)
    started.append(driver)
    wait(driver, lambda: any(t.epochs for t in state(tmp_path).trials.values()))
    assert doomed.workers
    service.give(120.0)
    watcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "study.engine.spot", "--address", cluster.address),
            *("--node-ip-address", DOOMED),
        ],
        env={**cluster.environment, ENDPOINT: service.endpoint},
        stdout=subprocess.PIPE,
        text=True,
    )
    started.append(watcher)
    wait(driver, lambda: not doomed.workers)
    doomed.kill()
    wait(driver, lambda: any(t.waits for t in state(tmp_path).trials.values()))
    cluster.join("--num-cpus=1", f"--node-ip-address={SAFE}")
    out, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, out
    watcher.terminate()
    assert "its node is drained" in watcher.communicate()[0]

    assert "its node is drained" in out
    assert "waits for a machine" in out
    records = list(read(tmp_path / "studies" / "s" / LEDGER))
    faults = [record for record in records if isinstance(record, FaultRecord)]
    assert [fault.cause for fault in faults] == [PREEMPTED]
    assert {t.status for t in state(tmp_path).trials.values()} == {COMPLETED}
    (again,) = [r for r in records if isinstance(r, TrialRecord) and r.attempt]
    assert again.trial == faults[0].trial
    epochs = [r.epoch for r in records if isinstance(r, ReportRecord) and r.trial == again.trial]
    assert epochs == list(range(1, EPOCHS + 1)), "it left with its checkpoint"
