"""Real processes: a study in a bucket moves from machine to machine, and waits for no bucket."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3
import yaml
from engine.test_engine import SPACE, task

from study.core.names import COMPLETED
from study.ledger.journal import LEDGER, read
from study.ledger.records import Record, ReportRecord, decode
from study.ledger.state import State, fold
from study.storage.checkpoints import KEPT, checkpoint_key
from study.storage.s3.bucket import S3Prefix
from study.storage.s3.segments import read_segments, segments
from study.storage.studies import WORK_VARIABLE

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
EPOCHS = 8


class Study:
    """A study in a bucket, run as a command on one machine after the other: `machine` has a
    working folder of its own, which goes with it."""

    def __init__(self, folder: Path, prefix: S3Prefix) -> None:
        self.folder = folder
        self.prefix = prefix.below("s")
        self._storage = prefix.uri
        self._machines = 0
        (folder / "lost").mkdir()
        settings = {**SPACE["study"], "num_trials": 2, "baselines": ["ce"]}
        (folder / "space.yaml").write_text(yaml.safe_dump({**SPACE, "study": settings}))
        tree: dict[str, Any] = {**task(folder / "pids"), "budget": {"epochs": EPOCHS}}
        tree["model"]["kwargs"]["pause"] = 0.2
        (folder / "task.yaml").write_text(yaml.safe_dump(tree))
        self.begin("space.yaml", "--task", "task.yaml", "--name", "s")

    def begin(self, *arguments: str) -> None:
        self._machines += 1
        self.work = self.folder / f"machine{self._machines}"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "study.run", *arguments),
                *("--storage", self._storage, "--max-concurrent", "1"),
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                "RAY_ADDRESS": "local",
                WORK_VARIABLE: str(self.work),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, expected: int, with_signal: int | None = None) -> tuple[str, str]:
        if with_signal is not None:
            self._process.send_signal(with_signal)
        out, err = self._process.communicate()
        assert self._process.returncode == expected, (out, err)
        return out, err

    def lose_the_machine(self) -> None:
        self.work.rename(self.folder / "lost" / self.work.name)

    @property
    def here(self) -> list[Record]:
        """What is in the ledger of the working folder."""
        found = list(self.work.glob(f"*/s/{LEDGER}"))
        return list(read(found[0])) if found else []

    @property
    def there(self) -> list[Record]:
        """What is in the bucket."""
        data = b"".join(read_segments(self.prefix, segments(self.prefix)))
        return [decode(line) for line in data.decode().splitlines()]

    def wait_until(self, it_is: Callable[[], bool]) -> None:
        while not it_is():
            assert self._process.poll() is None, self._process.communicate()
            time.sleep(0.1)


def reports(records: list[Record]) -> list[ReportRecord]:
    return [record for record in records if isinstance(record, ReportRecord)]


@pytest.mark.timeout(900)
def test_a_study_goes_on_on_another_machine_and_while_the_bucket_is_away(
    prefix: S3Prefix, s3_server: s3.Server, tmp_path: Path
) -> None:
    study = Study(tmp_path, prefix)
    study.wait_until(lambda: len(reports(study.there)) > 0)
    study.wait_until(lambda: reports(study.here)[-1].epoch in (2, 3))
    out, err = study.end(130, signal.SIGINT)
    assert f"in {study.prefix.where}, worked on in {study.work}" in out
    assert f"--resume s --storage '{prefix.uri}'" in out
    assert err == ""
    stopped = study.here
    assert study.there == stopped, "an orderly end ships everything"
    assert study.prefix.get("report.html") is not None
    assert study.prefix.get("driver.json") is None
    (trial,) = [trial for trial in fold(stopped).trials.values() if trial.end is None]
    kept = [item.key for item in study.prefix.items("checkpoints/")]
    assert 0 < len(kept) <= KEPT + 1, "the trial's process ends with Ray, perhaps before a removal"
    all_or_all_but_one = (trial.epochs, trial.epochs - 1)
    latest = next(e for e in all_or_all_but_one if kept[-1] == checkpoint_key(trial.id, e))

    study.lose_the_machine()
    study.begin("--resume", "s", "--trust")
    study.wait_until(lambda: len(reports(study.there)) > len(reports(stopped)))
    goes_on = reports(study.here)[len(reports(stopped))]
    assert (goes_on.trial, goes_on.epoch) == (trial.id, latest + 1), "from its checkpoint"
    with s3_server.silent():
        before = len(reports(study.here))
        study.wait_until(lambda: len(reports(study.here)) >= before + 4)
        study.end(-signal.SIGKILL, signal.SIGKILL)
    shipped = study.there
    assert study.here[: len(shipped)] == shipped

    study.lose_the_machine()
    ended = {trial.id for trial in fold(shipped).trials.values() if trial.end is not None}
    study.begin("--resume", "s", "--trust", "--keep-checkpoints")
    out, err = study.end(0)
    assert "takes over from process" in out
    assert err == ""
    records = study.there
    assert records[: len(shipped)] == shipped == study.here[: len(shipped)]
    assert_whole(fold(records), study, without_checkpoint=ended)


def assert_whole(state: State, study: Study, without_checkpoint: set[str]) -> None:
    assert state.finished
    for trial in state.trials.values():
        assert trial.status == COMPLETED
        assert sorted(trial.reports) == list(range(1, EPOCHS + 1))
    there = {item.key for item in study.prefix.items()}
    export = study.prefix.get("exports/best_miou.yaml")
    weights = study.prefix.get("exports/best_miou.safetensors")
    assert export is not None and weights is not None
    tree = yaml.safe_load(export.data)
    assert tree["weights"]["sha256"] == hashlib.sha256(weights.data).hexdigest()
    stated = study.prefix.get(f"weights/{tree['provenance']['trial']}.safetensors")
    assert stated is not None and stated.data == weights.data
    assert "driver.json" not in there
    assert not any(key.startswith("ray/") for key in there)
    kept = [key.split("/")[1:] for key in there if key.startswith("checkpoints/")]
    trials = [trial for trial, _ in kept]
    assert len(set(trials)) == len(trials), "one of each"
    asked = state.trials.keys() - without_checkpoint
    last = checkpoint_key("", EPOCHS).rpartition("/")[2]
    assert {trial for trial, name in kept if name == last} == asked
    left_by_the_kill = set(trials) - asked
    assert left_by_the_kill <= without_checkpoint
