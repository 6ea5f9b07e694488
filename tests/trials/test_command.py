"""A command as the training of a trial: its reports, its end, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_trainings import CLASSES, Heard, context, task

from study.config.own_training import CommandTrial, CsvReports, LineReports, OwnTrainingTask
from study.config.task import load_task
from study.core.errors import InputError
from study.losses import build_loss
from study.session.own_training import check, warnings
from study.space.search_space import load_space
from study.trials import command
from study.trials.command import OutOfMemory, command_of
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
        ("removes", "the command has removed output.log from its trial's folder, in which the "
         "study hears of it; let it clear or write a folder below that, such as {folder}/out"),
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
def test_a_command_may_save_what_it_likes_after_its_last_report(tmp_path: Path) -> None:
    heard = Heard(stop_after=3)
    one = made(tmp_path, "saves", heard)
    run_trial(one)
    assert heard.epochs == [1, 2, 3]
    assert (one.folder / "saved").exists()


@pytest.mark.slow
def test_a_command_that_lingers_in_silence_after_its_last_report_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LAST_SILENCE", 0.5)
    one = made(tmp_path, "waits", Heard(stop_after=2), epochs=2)
    run_trial(one)
    assert not is_alive(int((one.folder / "script.pid").read_text()))


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
def test_a_command_without_its_folder_ends_with_its_trial(tmp_path: Path) -> None:
    (folder := tmp_path / "own").mkdir()
    code = f"import shutil, time; shutil.rmtree({str(folder)!r}); time.sleep(600)"
    words = (str(folder), str(folder / "stop"), str(tmp_path), "0.1", sys.executable, "-c", code)
    with subprocess.Popen(
        [sys.executable, command.supervise.__file__, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        until(lambda: not folder.exists())
        said, _ = process.communicate(timeout=PATIENCE)  # closes its input
    assert said == b'{"code": -15}\n'


@pytest.mark.slow
def test_children_that_a_command_leaves_are_killed_and_counted(tmp_path: Path) -> None:
    one = made(tmp_path, "child", Heard(stop_after=3))
    run_trial(one)
    pid = int((one.folder / "child.pid").read_text())
    until(lambda: not is_alive(pid))
    assert "the command left 1 process behind, now killed" in (one.folder / LOG).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["trial", "supervisor"])
def test_a_command_ends_with_the_process_of_its_trial(tmp_path: Path, killed: str) -> None:
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
        above = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(trial.pid if killed == "trial" else above, signal.SIGKILL)
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
    hint = r'; a report is a line of output such as \{"epoch": 1, "val/miou": 0\.41\}$'
    with pytest.raises(InputError, match=f"ended after 0 of 1 epochs, with exit code 0.*{hint}"):
        run_trial(one)
    said = (one.folder / LOG).read_text()
    assert "OWN=yes" in said and "OMP_NUM_THREADS=1" in said and "PYTHONUNBUFFERED=1" in said
    assert f"NOTE={one.folder / 'loss.yaml'}" in said
    assert "STUDY_LOSS_ECHO=" in said


@pytest.mark.parametrize(
    ("command", "run", "told"),
    [
        ("tools/go train.py {{loss_file}} --data ./data data", None,
         "{here}/tools/go {here}/train.py {own}/loss.yaml --data {here}/data data"),
        ("go --data=./data --file=train.py a=b= =./data {{loss_file}}", None,
         "go --data={here}/data --file={here}/train.py a=b= ={here}/data {own}/loss.yaml"),
        ("tools/go train.py {{loss_file}} ./data", "sub dir",
         "tools/go train.py {own}/loss.yaml ./data"),
        ("'my tools/go' 'a b' \\\"{{{{x}}}}\\\" {{loss_file!s}} {{seed:>3}}", None,
         "{here}/my tools/go a b \"{{x}}\" {own}/loss.yaml   0"),
    ],
)  # fmt: skip
def test_relative_paths_are_those_of_where_the_study_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, run: str | None, told: str
) -> None:
    for name in ("data", "tools", "my tools"):
        (tmp_path / name).mkdir()
    for name in ("train.py", "tools/go", "my tools/go"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    trial = CommandTrial(command=command.format(), cwd=run)
    one = context(tmp_path, {"trial": trial.model_dump(), "budget": {"epochs": 1}})
    words = command_of(one, trial)
    assert " ".join(words) == told.format(here=tmp_path, own=one.folder)


@pytest.mark.slow
def test_a_command_runs_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    trial = {"command": "sh -c pwd {loss_file}", "cwd": str(tmp_path / "there")}
    one = context(tmp_path, {"trial": trial, "budget": {"epochs": 1}})
    with pytest.raises(InputError, match="ended after 0 of 1 epochs"):
        run_trial(one)
    assert (one.folder / LOG).read_text() == f"{tmp_path / 'there'}\n"


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
        (1, {"val/miou": 0.1, "train/loss": 1.0}),
    ]
    file.write_text(f"{head}0, 0.1, 1\n1, 0.2,\n2, 0.3, 1\n")
    assert list(read.new()) == [
        (2, {"val/miou": 0.2}), (3, {"val/miou": 0.3, "train/loss": 1.0}),
    ]  # fmt: skip
    file.write_text(f"{head}0, 0.1, 1\n1, 0.2,\n2, 0.3, 1\n3, 0.4, 1")
    assert list(read.new(ended=True)) == [(4, {"val/miou": 0.4, "train/loss": 1.0})]
    file.write_text("epoch, miou, loss\n4, 0.5, 1\n5, 0.5, 1\n")
    with pytest.raises(InputError) as error:
        list(read.new())
    assert "columns/val/miou: unknown column 'metrics/mIoU'" in str(error.value)
    assert "(allowed: epoch, miou, loss)" in str(error.value)


def written(folder: Path, text: bytes) -> list[Any]:
    (folder / LOG).write_bytes(b"")
    read = reader(CommandTrial(command="x {loss_file}"), folder)
    (folder / LOG).write_bytes(text)
    return list(read.new())


@pytest.mark.parametrize(
    "line",
    [
        b'{"epoch": 1, "val/miou": 0.4}\n',
        b'Epoch 1:  50%|##   | 1/2\rEpoch 1: 100%|#####| 2/2{"epoch": 1, "val/miou": 0.4}\n',
        b'Epoch 1: {loss: 1}, {"lr": 1} {"epoch": 1, "val/miou": 0.4}\r',
        b'\xff\xfe[INFO] {"epoch": 1, "val/miou": 0.4}\r\n{"epoch": 2, \n',
        b'{"a":' * 99999 + b'"epoch"}\n{"epoch": 1.0, "val/miou": 0.4}\n{\'epoch\': 2}\n{}\n',
        b'\x1b[32m{"epoch": 1, "val/miou": 0.4}\x1b[0m\n',
        b'{"epoch": 1, "val/miou": 0.4} 50%|##   | 1/2\n',
        b'read {"epoch": 40, "lr": 0.1} of a.yaml\n{"epoch": 1, "val/miou": 0.4}\n',
        b'{"all": {"epoch": 3, "val/miou": 0.3}} {"epoch": 1, "val/miou": 0.4}\n',
    ],
    ids=["alone", "bar", "carriage", "bytes", "deep", "colour", "behind", "settings", "within"],
)
def test_a_report_is_found_among_any_output(tmp_path: Path, line: bytes) -> None:
    assert written(tmp_path, line) == [(1, {"val/miou": 0.4})]


def test_two_reports_may_stand_in_a_line(tmp_path: Path) -> None:
    line = b'{"epoch": 1, "val/miou": 0.4}{"epoch": 2, "val/miou": 0.5}\n'
    assert written(tmp_path, line) == [(1, {"val/miou": 0.4}), (2, {"val/miou": 0.5})]


def test_a_sign_of_percent_in_a_cell_is_understood(tmp_path: Path) -> None:
    file, read = rows(tmp_path, **{"val/miou": "mIoU"})
    file.write_bytes(b"\xef\xbb\xbf epoch , mIoU \r\n1, 43.5 %\r\n2,44%\r\n")
    assert list(read.new()) == [(1, {"val/miou": 0.435}), (2, {"val/miou": 0.44})]


def test_what_never_ends_its_line_is_read_once(tmp_path: Path) -> None:
    read = reader(CommandTrial(command="x {loss_file}"), tmp_path)
    with open(tmp_path / LOG, "wb", buffering=0) as log:
        log.write(b"x" * 2**21)
        assert list(read.new()) == []
        log.write(b'\n{"epoch": 1}\n')
        assert list(read.new()) == [(1, {})]


def rows(folder: Path, **columns: str) -> tuple[Path, Any]:
    reports = CsvReports(csv="r.csv", columns=columns)
    return folder / "r.csv", reader(CommandTrial(command="x {loss_file}", reports=reports), folder)


def test_the_rows_of_training_and_validation_are_one_report(tmp_path: Path) -> None:
    """As Lightning's CSVLogger writes them, whose head grows, too."""
    file, read = rows(tmp_path, **{"val/miou": "val", "train/loss": "loss"})
    file.write_text("epoch,step,loss\n1,5,0.7\n,5,\n")
    assert list(read.new()) == []
    file.write_text("epoch,step,loss,val\n1,5,0.7,\n,5,,\n1,5,,0.4\n2,9,0.6,\n")
    assert list(read.new()) == [(1, {"train/loss": 0.7, "val/miou": 0.4})]
    file.write_text("epoch,step,loss,val\n1,5,0.7,\n1,5,,0.4\n2,9,0.6,\n3,9,,0.5\n")
    assert list(read.new()) == [(2, {"train/loss": 0.6})]
    assert list(read.new(ended=True)) == [(3, {"val/miou": 0.5})]
    assert list(read.new(ended=True)) == []


def test_a_column_of_test_may_be_written_by_confirmations_alone(tmp_path: Path) -> None:
    file, read = rows(tmp_path, **{"val/miou": "val", "test/miou": "test"})
    file.write_text("epoch,val\n1,0.5\n2,0.6\n")
    assert list(read.new()) == [(1, {"val/miou": 0.5})]
    assert list(read.new(ended=True)) == [(2, {"val/miou": 0.6})]


def test_an_attempt_may_add_to_the_rows_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("epoch,val\n1,0.1\n2,0.2\n")
    file, read = rows(tmp_path, **{"val/miou": "val"})
    with open(file, "a") as stream:
        print("epoch,val", file=stream, flush=True)
        assert list(read.new()) == []  # no loss was called yet
        print("1,0.1", file=stream, flush=True)
    assert list(read.new()) == [(1, {"val/miou": 0.1})]


def test_a_file_that_is_no_csv_is_named(tmp_path: Path) -> None:
    file, read = rows(tmp_path, **{"val/miou": "val"})
    file.write_text(f"epoch,val\n1,{'9' * 200000}\n")
    with pytest.raises(InputError, match=r"r\.csv: not a CSV file: field larger"):
        list(read.new())
    file.write_text("epoch|val\n1|0.5\n")
    with pytest.raises(InputError, match="unknown column 'epoch'"):
        list(read.new())


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


ROWS = {"csv": "results.csv", "epoch": "Epoch", "columns": {"val/miou": "IoU"}}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_stand_apart_by_other_signs(tmp_path: Path, delimiter: str) -> None:
    trial = CommandTrial.model_validate({"command": "x {loss_file}", "reports": ROWS})
    rows = reader(trial, tmp_path)
    text = 'Epoch,"IoU"\n1,0.25\n'.replace(",", delimiter)
    (tmp_path / "results.csv").write_text(text)
    assert list(rows.new(ended=True)) == [(1, {"val/miou": 0.25})]


@pytest.mark.parametrize(
    ("reports", "found", "hint"),
    [
        (ROWS, None, r"it did not write .*results.csv: write it as \{folder\}/results.csv"),
        (ROWS, "Epoch,IoU\n0,0.2\n1,0.2\n", "if the first epoch .* 0 there, add first_epoch: 0"),
        ({"jsonl": "log.jsonl"}, None, r"it did not write .*log.jsonl: write it as \{folder\}"),
    ],
)
def test_what_is_missing_from_a_file_of_reports_is_said(
    tmp_path: Path, reports: Any, found: str | None, hint: str
) -> None:
    trial = CommandTrial.model_validate({"command": "x {loss_file}", "reports": reports})
    rows = reader(trial, tmp_path)
    if found is not None:
        (tmp_path / "results.csv").write_text(found)
    list(rows.new(ended=True))
    assert re.match(hint, rows.hint())


def test_lines_that_are_counted_from_0_name_the_key(tmp_path: Path) -> None:
    lines = reader(CommandTrial(command="x {loss_file}"), tmp_path)
    (tmp_path / LOG).write_text('{"epoch": 0, "val/miou": 0.2}\n')
    with pytest.raises(InputError, match=r"a whole number from 1, got 0; .* first_epoch: 0"):
        list(lines.new())


@pytest.mark.parametrize("path", ["/data/results.csv", "../results.csv"])
def test_reports_are_read_from_the_trials_own_folder(path: str) -> None:
    for key, reports in (("csv", {**ROWS, "csv": path}), ("jsonl", {"jsonl": path})):
        trial = {"command": "true {loss_file}", "reports": reports}
        config = load_task({**task(), "trial": trial, "objectives": ["val/miou"]}).config
        assert isinstance(config, OwnTrainingTask), "ledgers of before hold such paths"
        with pytest.raises(InputError, match="must be a path in the trial's own folder") as caught:
            check(load_space("recall"), config)
        assert caught.value.key == f"trial/reports/{key}"


@pytest.mark.parametrize("lacking", ["seed", "lr_scale"])
def test_a_command_that_is_not_told_what_differs_is_warned_of(lacking: str) -> None:
    words = "train --loss {loss_file} --seed {seed} --rate {lr_scale}"
    for line, count in ((words, 0), (words.replace(f"{{{lacking}}}", "1"), 1)):
        tree = {**task(), "trial": {"command": line}, "objectives": ["val/miou"]}
        config = load_task(tree).config
        assert isinstance(config, OwnTrainingTask)
        found = warnings(config, load_space("recall"))
        assert sum(f"the command has no {{{lacking}}}" in one for one in found) == count


def test_the_loss_as_python_refuses_probabilities_in_a_trial(tmp_path: Path) -> None:
    one = context(
        tmp_path, {**task(classes=CLASSES), "trial": {"command": "x {loss_python}"}}, loss=LOSS
    )
    command_of(one, CommandTrial(command="x {loss_python}"))
    loss = runpy.run_path(str(one.folder / "loss.py"))["Loss"]
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="was given probabilities: leave out the softmax"):
        loss()(torch.randn(1, 3, 2, 2).softmax(1), labels)
    assert loss()(torch.randn(1, 3, 2, 2), labels).isfinite()
