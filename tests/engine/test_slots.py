"""Real nodes: a study uses those that join, counts off those that leave, and says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine.test_nodes import GOOD, PATIENCE, SPACE, faults, join, said_of, state, wait

from benchmarks.raylets import Cluster
from study.ledger.journal import LEDGER, read
from study.ledger.records import NodesRecord
from study.scheduler.retries import LOST, UNFIT

ROOT = Path(__file__).parents[2]
LATE, OTHER_DATA = "127.0.0.3", "127.0.0.4"
PATHS = f"{ROOT}:{ROOT / 'tests'}"


def begin(cluster: Cluster, folder: Path) -> subprocess.Popen[str]:
    space: dict[str, Any] = {**SPACE, "study": {**SPACE["study"], "num_trials": 500}}
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    tree = yaml.safe_load((ROOT / "study" / "tasks" / "tiny.yaml").read_text())
    tree["data"] = {"factory": "engine_parts:data_of_this_node"}
    kwargs = {"log": str(folder / "pids"), "pause": 0.5}
    tree["model"] = {"factory": "engine_parts:build", "kwargs": kwargs}
    (folder / "task.yaml").write_text(yaml.safe_dump(tree | {"budget": {"epochs": 4}}))
    files = ("space.yaml", "--task", "task.yaml", "--name", "s")
    return subprocess.Popen(
        [sys.executable, "-m", "study.run", *files, "--address", cluster.address],
        cwd=folder,
        env=cluster.environment | {"PYTHONPATH": PATHS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def changes(folder: Path) -> list[NodesRecord]:
    path = folder / "studies" / "s" / LEDGER
    records = read(path) if path.exists() else ()
    return [record for record in records if isinstance(record, NodesRecord)]


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_slots_follow_a_node_that_is_late_one_with_other_data_and_one_that_is_cut_off(
    tmp_path: Path, cluster: Cluster, started: list[subprocess.Popen[str]]
) -> None:
    good = join(cluster, GOOD, PATHS)
    driver = begin(cluster, tmp_path)
    started.append(driver)
    lines: list[str] = []
    assert driver.stdout is not None
    threading.Thread(target=lines.extend, args=(driver.stdout,), daemon=True).start()
    wait(driver, lambda: any(trial.epochs for trial in state(tmp_path).trials.values()))
    assert state(tmp_path).most_slots == 1
    join(cluster, LATE, PATHS)
    wait(driver, lambda: [one.slots for one in changes(tmp_path)] == [2])
    cluster.environment["OTHER_DATA"] = "1"
    join(cluster, OTHER_DATA, PATHS)
    wait(driver, lambda: bool(said_of(OTHER_DATA, lines)))
    good.kill()
    wait(driver, lambda: [one.slots for one in changes(tmp_path)] == [2, 1])
    driver.send_signal(signal.SIGINT)
    assert driver.wait(PATIENCE) == 130, lines
    joined, left = changes(tmp_path)
    assert (joined.nodes, left.nodes) == (2, 1)
    assert joined.change.startswith(f"node {LATE} (") and joined.change.endswith(" has joined")
    assert left.change.startswith(f"node {GOOD} (") and left.change.endswith(" has left")
    assert f"{joined.change}: 2 trials at once" in "".join(lines)
    (why,) = said_of(OTHER_DATA, lines)
    assert why.startswith("it has other data (fingerprint ")
    assert {fault.cause for fault in faults(tmp_path)} <= {LOST, UNFIT}
    nonces = list((tmp_path / "studies").glob(".nonce-*"))
    assert not nonces, "the session has tidied up"
