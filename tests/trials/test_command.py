"""A command as the training of a trial: its reports, its end, and what it leaves."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_trainings import CLASSES, Heard, context

from study.config.own_training import CommandTrial, CsvReports, LineReports
from study.core.errors import InputError
from study.losses import build_loss
from study.trials.command import OutOfMemory
from study.trials.context import TrialContext
from study.trials.reports import reader
from study.trials.run import run_trial
from study.trials.supervise import LOG

SCRIPT = Path(__file__).with_name("scripts.py")
PATIENCE = 240.0
LOSS = {"focal_gamma": 2.0}


def made(
    folder: Path, mode: str, heard: Heard | None = None, *, epochs: int = 3, **trial: Any
) -> TrialContext:
    words = f"{sys.executable} {SCRIPT} {mode} {{loss_file}} {{folder}} {{stop_file}} {{test}}"
    command = {"command": f"{words} {{epochs}}", "grace_s": 0.2, **trial}
    return context(
        folder, {"trial": command, "budget": {"epochs": epochs}}, heard or Heard(), loss=LOSS
    )


def until(holds: Callable[[], bool]) -> None:
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < PATIENCE
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "reports"),
    [
        ("plain", "stdout"),
        ("lines", {"jsonl": "metrics.jsonl"}),
        ("csv", {"csv": "results.csv", "columns": {"val/miou": "seg(mIoU)"}}),
    ],
)
def test_reports_come_out_of_output_lines_and_csv(tmp_path: Path, mode: str, reports: Any) -> None:
    heard = Heard(stop_after=3)
    one = made(tmp_path, mode, heard, reports=reports)
    run_trial(one)
    assert heard.epochs == [1, 2, 3]
    assert [values["val/miou"] for _, values in heard.reports] == [0.1, 0.2, 0.3]
    assert "epoch 1 begins" in (one.folder / LOG).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("ignores", "the training has called another loss"),
        ("silent", "the training has not called the loss of its trial, so that all trials would be "
         "trained alike; build the loss of {loss_file}"),
        ("crashes", "the command failed after 0 of 3 epochs, with exit code 1; it said last: "
         "KeyError: 'no such thing'"),
        ("exit", "the command failed after 2 of 3 epochs, with exit code 3; it said last: bye"),
        ("early", "the command ended after 2 of 3 epochs, with exit code 0"),
        ("words", "val/miou must be a number, got 'high'"),
        ("percent", "val/miou must be in 0..1, got 10; report 0.1"),
        ("zero", "an epoch must be a whole number from 1, got 0"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(tmp_path: Path, mode: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        run_trial(made(tmp_path, mode))
    assert str(error.value).startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "on_gpu"), [("memory", True), ("killed", False)])
def test_want_of_memory_is_told_from_a_fault(tmp_path: Path, mode: str, on_gpu: bool) -> None:
    with pytest.raises(OutOfMemory) as error:
        run_trial(made(tmp_path, mode))
    assert error.value.on_gpu is on_gpu


@pytest.mark.slow
def test_a_first_epoch_of_zero_may_be_said(tmp_path: Path) -> None:
    heard = Heard(stop_after=3)
    run_trial(made(tmp_path, "zero", heard, first_epoch=0))
    assert heard.epochs == [1, 2, 3]


@pytest.mark.slow
def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    trial = {"command": "no-such-program {loss_file}"}
    one = context(tmp_path, {"trial": trial, "budget": {"epochs": 1}})
    with pytest.raises(InputError, match=r"cannot be started: No such file.*no-such-program"):
        run_trial(one)


@pytest.mark.slow
def test_a_stopped_command_sees_the_stop_file(tmp_path: Path) -> None:
    one = made(tmp_path, "waits", Heard(stop_after=2), grace_s=PATIENCE)
    run_trial(one)
    assert (one.folder / "stopped").exists()
    assert not is_alive(int((one.folder / "script.pid").read_text()))


@pytest.mark.slow
def test_a_deaf_command_is_killed(tmp_path: Path) -> None:
    one = made(tmp_path, "deaf", Heard(stop_after=2))
    run_trial(one)
    assert not (one.folder / "stopped").exists()
    assert not is_alive(int((one.folder / "script.pid").read_text()))


@pytest.mark.slow
def test_children_that_a_command_leaves_are_killed_and_counted(tmp_path: Path) -> None:
    one = made(tmp_path, "child", Heard(stop_after=3))
    run_trial(one)
    pid = int((one.folder / "child.pid").read_text())
    until(lambda: not is_alive(pid))
    assert "the command left 1 process behind, now killed" in (one.folder / LOG).read_text()


@pytest.mark.slow
def test_a_command_ends_with_the_process_of_its_trial(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from trials.test_command import made\n"
        "from study.trials.run import run_trial\n"
        "run_trial(made(Path(sys.argv[2]), 'deaf'))"
    )
    tests = str(Path(__file__).parents[1])
    trial = subprocess.Popen([sys.executable, "-c", code, tests, str(tmp_path)])
    note = tmp_path / "own" / "script.pid"
    try:
        until(lambda: note.exists() and note.read_text() != "")
        pid = int(note.read_text())
        trial.send_signal(signal.SIGKILL)
        until(lambda: not is_alive(pid))
    finally:
        trial.kill()
        trial.wait()


@pytest.mark.slow
def test_each_attempt_reads_its_own_reports(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        run_trial(made(tmp_path, "exit"))
    heard = Heard(stop_after=3)
    run_trial(made(tmp_path, "plain", heard))
    assert heard.epochs == [1, 2, 3]


@pytest.mark.slow
def test_the_environment_is_that_of_the_trial_and_the_task(tmp_path: Path) -> None:
    trial = {"command": "env NOTE={loss_file} env", "env": {"OWN": "yes"}}
    one = context(tmp_path, {"trial": trial, "budget": {"epochs": 1}})
    with pytest.raises(InputError, match="ended after 0 of 1 epochs, with exit code 0"):
        run_trial(one)
    said = (one.folder / LOG).read_text()
    assert "OWN=yes" in said and "OMP_NUM_THREADS=1" in said and "PYTHONUNBUFFERED=1" in said
    assert f"NOTE={one.folder / 'loss.yaml'}" in said
    assert "STUDY_LOSS_ECHO=" in said


def test_lines_are_read_once_they_are_whole(tmp_path: Path) -> None:
    trial = CommandTrial(command="x {loss_file}", reports=LineReports(jsonl="m.jsonl"))
    file = tmp_path / "m.jsonl"
    file.write_text('{"epoch": 9, "val/miou": 0.9}\n')  # of an earlier attempt
    read = reader(trial, tmp_path)
    assert list(read.new()) == []
    with open(file, "a") as stream:
        stream.write('{"epoch": 1, "val/miou": 0.1}\n{"epoch": 2, "val')
        stream.flush()
        assert list(read.new()) == [(1, {"val/miou": 0.1})]
        assert list(read.new()) == []
        stream.write('/miou": 0.2}')
        stream.flush()
        assert list(read.new(ended=True)) == [(2, {"val/miou": 0.2})]
    file.write_text('{"epoch": 1}\n')
    assert list(read.new()) == [(1, {})]
    file.write_text("x" * 50 + "\n")
    with pytest.raises(InputError, match=r"m\.jsonl: not a line of JSON: 'xxx"):
        list(read.new())


def test_rows_are_read_from_a_file_that_is_written_anew(tmp_path: Path) -> None:
    columns = {"val/miou": "metrics/mIoU", "train/loss": "loss"}
    trial = CommandTrial(
        command="x {loss_file}", reports=CsvReports(csv="r.csv", columns=columns), first_epoch=0
    )
    file = tmp_path / "r.csv"
    head = "epoch,   metrics/mIoU, loss\n"
    file.write_text(f"{head}0, 0.9, 1\n")  # of an earlier attempt
    read = reader(trial, tmp_path)
    assert list(read.new()) == []
    file.write_text(head)
    assert list(read.new()) == []
    file.write_text(f"{head}0, 0.1, 1\n1, 0.2,\n2, 0.")
    assert list(read.new()) == [
        (1, {"val/miou": 0.1, "train/loss": 1.0}), (2, {"val/miou": 0.2}),
    ]  # fmt: skip
    file.write_text(f"{head}0, 0.1, 1\n1, 0.2,\n2, 0.3, 1")
    assert list(read.new(ended=True)) == [(3, {"val/miou": 0.3, "train/loss": 1.0})]
    file.write_text("epoch, miou, loss\n")
    with pytest.raises(InputError) as error:
        list(read.new())
    assert "columns/val/miou: unknown column 'metrics/mIoU'" in str(error.value)
    assert "(allowed: epoch, miou, loss)" in str(error.value)


@pytest.mark.slow
def test_the_loss_as_python_gives_the_same_numbers_without_this_package(tmp_path: Path) -> None:
    config = {
        "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
        "recall": {"ema_momentum": 0.5},
    }
    script = tmp_path / "train.py"
    script.write_text(
        "import importlib.util, json, sys, torch\n"
        "sys.modules['study'] = None\n"
        "spec = importlib.util.spec_from_file_location('loss', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "value = module.Loss()(torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 9]]]))\n"
        "print(json.dumps({'epoch': 1, 'val/miou': 0.5, 'value': value.item()}))\n"
    )
    trial = {"command": f"{sys.executable} -I {script} {{loss_python}}"}
    classes = {**CLASSES, "ignore": 9}
    the_task = {"trial": trial, "budget": {"epochs": 1}, "classes": classes}
    heard = Heard(stop_after=1)
    one = context(tmp_path, the_task, heard, loss=config)
    run_trial(one)
    expected = build_loss(config, num_classes=3, class_counts=CLASSES["pixels"], ignore_index=9)(
        torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 9]]])
    )
    assert heard.reports[0][1]["value"] == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_as_python_needs_classes(tmp_path: Path) -> None:
    trial = {"command": "python train.py {loss_python}"}
    with pytest.raises(InputError, match=r"classes: \{loss_python\} needs the classes"):
        run_trial(context(tmp_path, {"trial": trial, "budget": {"epochs": 1}}))
