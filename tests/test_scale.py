"""The benchmark of a driver with many slots, with few."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.stand_in import DriverClock, Farm


def work(seconds: float) -> None:
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


def test_the_clock_runs_while_the_driver_works_and_jumps_while_it_waits() -> None:
    clock = DriverClock()
    farm = Farm(clock, lambda order, epoch: (60.0, None))
    work(0.01)
    assert 0.01 <= clock() < 60
    with clock.stopped():
        work(0.01)
    late, soon = farm.later(60.0, lambda: "late"), farm.later(0.05, lambda: "soon")
    assert farm.wait([late, soon], timeout=0.1)[0] == [soon]
    assert farm.wait([late], timeout=0.1)[0] == []
    assert 0.15 <= clock() < 60
    assert farm.wait([late], timeout=100.0)[0] == [late] and clock() >= 60
    assert clock.busy < clock() - 59


def test_the_busy_time_between_two_times_is_that_of_all_slots() -> None:
    farm = Farm(DriverClock(), lambda order, epoch: (60.0, None))
    farm.trained = [(0.0, 60.0), (10.0, 70.0), (100.0, 160.0)]
    assert farm.busy(5.0, 65.0) == 55 + 55
    assert farm.busy(0.0, 200.0) == 180


def test_the_driver_waits_for_the_disk() -> None:
    clock = DriverClock()
    clock.synced(lambda file: time.sleep(0.02), 0)
    assert clock.syncs == 1 and clock.busy >= clock.sync_s >= 0.02


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_with_eight_slots_keeps_them_busy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "_driver", "--slots", "8", "--stop-early"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = SimpleNamespace(**json.loads(done.stdout.splitlines()[-1]))
    rows = vars(found)
    assert rows["trials"] == 16
    assert rows["busy share"] > 0.5 and rows["busy share, once all slots run"] > 0.5
    assert rows["reports a second"] < 8 / (0.8 * 60) + 0.01
