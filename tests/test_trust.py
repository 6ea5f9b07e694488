"""Factories that come out of an export or a ledger are code, which runs where it is trusted."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ledgers import chained, make_study
from tiny_task import TINY

from study import export, report, run, status, train
from study.analysis import evidence
from study.core.errors import InputError
from study.ledger.chain import parts
from study.ledger.journal import LEDGER, Ledger
from study.ledger.records import TrialRecord
from study.scheduler.study_scheduler import StudyScheduler
from study.session.options import Options
from study.session.prepare import prepare
from study.training.config_file import read_config

MODULE = """
from pathlib import Path
import torch
Path("ran").touch()
def net(num_classes):
    return torch.nn.Conv2d(3, num_classes, 1)
def loss(ignore_index):
    return torch.nn.CrossEntropyLoss(ignore_index=ignore_index)
"""
NAME = "code_of_somebody:net"
LOSS = "code_of_somebody:loss"
SPACE: dict[str, Any] = {
    "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
    "study": {"num_trials": 2, "reference_trials": 1, "baselines": ["ce"], "rungs": None},
}
TASK = {**TINY, "model": {"factory": NAME}}
ORIGIN = {"seed": 0, "metrics": {}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    monkeypatch.setenv("RAY_ADDRESS", "local")
    (tmp_path / "code_of_somebody.py").write_text(MODULE)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK))
    sys.modules.pop("code_of_somebody", None)
    return tmp_path


def has_run(here: Path) -> bool:
    sys.modules.pop("code_of_somebody", None)
    found = (here / "ran").exists()
    (here / "ran").unlink(missing_ok=True)
    return found


def refused(capsys: pytest.CaptureFixture[str], *names: str, code: str = NAME) -> None:
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(name in err for name in (repr(code), "--trust", *names)), err


MODEL = ("best.yaml:", ": task/model/factory: ")


@pytest.mark.parametrize(
    ("exported", "place"),
    [
        ({"task": TASK, "provenance": ORIGIN}, MODEL),
        ({"task": TASK, "decision": {"tau": 0.5, "log_prior": [-1.0]}}, MODEL),
        ({"task": TASK, "weights": {"file": "best_miou.safetensors", "sha256": "0"}}, MODEL),
        (
            {"task": {**TINY, "data": {"factory": NAME}}, "provenance": ORIGIN},
            ("best.yaml:", ": task/data/factory: "),
        ),
        ({"task": "task.yaml", "provenance": ORIGIN}, ("task.yaml:", ": model/factory: ")),
    ],
    ids=["provenance", "decision", "weights", "data", "task file"],
)
def test_an_export_runs_no_code(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    exported: dict[str, Any],
    place: tuple[str, ...],
) -> None:
    (here / "best.yaml").write_text(yaml.safe_dump(exported))
    assert train.main(["best.yaml", "--device", "cpu"]) == 2
    assert not has_run(here)
    refused(capsys, *place)
    with pytest.raises(InputError, match=r"in Python: trust=True"):
        read_config(here / "best.yaml")


def test_a_loss_of_an_export_or_a_ledger_runs_no_code(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = {"task": TINY, "loss": {"factory": LOSS}, "provenance": ORIGIN}
    (here / "best.yaml").write_text(yaml.safe_dump(exported))
    assert train.main(["best.yaml", "--device", "cpu"]) == 2
    assert not has_run(here)
    refused(capsys, "best.yaml:", ": loss/factory: ", code=LOSS)
    own = {**SPACE["study"], "baselines": ["ce", {"mine": {"factory": LOSS}}]}
    begin(here, TINY, {**SPACE, "study": own})
    assert has_run(here)
    capsys.readouterr()
    assert run.main(["--resume", "s", "--dry-run"]) == 2
    assert not has_run(here)
    refused(capsys, "space/study/baselines/1/mine/factory: ", code=LOSS)
    assert run.main(["--resume", "s", "--dry-run", "--trust"]) == 0


def test_a_loss_that_was_put_into_a_ledgers_trial_runs_no_code(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begin(here, TINY)
    lines = [parts(line)[0] for line in (folder / LEDGER).read_text().splitlines()]
    trials = [json.loads(line) for line in lines]
    for line in trials:
        if line["kind"] == "trial":
            line["config"]["loss"] = {"factory": LOSS}
    (folder / LEDGER).write_bytes(chained([json.dumps(line).encode() for line in trials]))
    assert run.main(["--resume", "s", "--dry-run"]) == 2
    assert not has_run(here)
    refused(capsys, "/config/loss/factory: ", code=LOSS)


def test_a_trusted_export_and_a_given_config_do(here: Path) -> None:
    (here / "best.yaml").write_text(yaml.safe_dump({"task": TASK, "provenance": ORIGIN}))
    assert train.main(["best.yaml", "--device", "cpu", "--trust"]) == 0
    assert has_run(here)
    assert read_config(here / "best.yaml", trust=True).config.task.factories
    (here / "config.yaml").write_text(yaml.safe_dump({"task": TASK}))
    assert train.main(["config.yaml", "--device", "cpu"]) == 0
    assert has_run(here)


def begin(here: Path, task: dict[str, Any], space: dict[str, Any] = SPACE) -> Path:
    """A study with a finished trial and an unfinished one."""
    prepared = prepare(Options(space=space, task=task, storage=here / "studies", name="s"))
    assert prepared.first_line is not None
    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    scheduler = StudyScheduler(ledger, prepared.plan, prepared.space, prepared.task.config)
    first = scheduler.suggest()
    assert isinstance(first, TrialRecord)
    for epoch in range(1, prepared.plan.epochs + 1):
        scheduler.on_report(first.trial, epoch, dict.fromkeys(prepared.plan.objectives, 0.5))
    scheduler.suggest()
    ledger.close()
    return prepared.folder


def test_a_ledger_runs_no_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begin(here, TASK)
    assert has_run(here), "the task that began it was given"
    for command in (status, export, report):
        assert command.main(["s"]) == 0
    assert not has_run(here)
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        assert run.main(["--resume", "s", *more]) == 2
        assert not has_run(here)
        refused(capsys, f"{folder / LEDGER}:1: task/model/factory: ")
    assert run.main(["--resume", "s", "--dry-run", "--trust"]) == 0


def test_a_ledger_without_code_needs_no_trust(here: Path) -> None:
    begin(here, TINY)
    assert run.main(["--resume", "s", "--dry-run"]) == 0


class Pickled:
    """What a pickle would run as it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, ("ran",)


def test_evidence_is_not_unpickled(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_study(here / "studies" / "s")
    (path, *_) = sorted((folder / "evidence").iterdir())
    np.savez(path, test_confusion=np.array([Pickled()], object))
    assert report.main(["s"]) == 2
    assert str(path) in capsys.readouterr().err
    assert not (here / "ran").exists()


def test_evidence_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match=r"pipe.npz: not a regular file"):
        evidence.read(tmp_path / "pipe.npz")


def test_trust_is_for_what_the_user_has_not_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--trust", "--dry-run"]) == 2
    told = "error: --trust: a task that you give is trusted anyway; this is for --resume\n"
    assert capsys.readouterr().err == told
