"""python -m study.run: bad input is one line and exit code 2, a dry run starts nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.run import main, parser, seconds

HERE = Path(__file__).parent


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


BAD = {
    "an unknown space": (["no_such_space"], "joint"),
    "an unknown task": (["--task", "no_such_task"], "camvid"),
    "a missing space file": (["nowhere/space.yaml"], "nowhere/space.yaml"),
    "no data root": (["--task", "camvid"], "--data-root"),
    "a data root that is not there": (
        ["--task", "camvid", "--data-root", "/no/such/folder"],
        "/no/such/folder",
    ),
    "a data root for generated data": (["--data-root", "."], "--data-root"),
    "a name with a slash": (["--name", "a/b"], "--name"),
    "an occupied name": (["--name", "taken"], "--resume taken"),
    "an unknown flag": (["--frobnicate"], "--frobnicate"),
    "a number that is text": (["--num-trials", "many"], "--num-trials"),
    "a duration without sense": (["--time-budget", "soon"], "--time-budget"),
    "no trial at all": (["--num-trials", "0"], "--num-trials"),
    "too many points of a grid": (["baselines", "--num-trials", "999"], "--num-trials"),
    "an unknown study": (["--resume", "nobody"], "nobody"),
    "a space for a study that goes on": (["joint", "--resume", "taken"], "SPACE"),
    "a seed for a study that goes on": (["--seed", "1", "--resume", "taken"], "--seed"),
    "a tracking server that is away": (["--tracking-uri", "http://127.0.0.1:9"], "127.0.0.1:9"),
    "a tracking scheme that is none": (["--tracking-uri", "gopher://x"], "gopher"),
    "more GPUs than there can be": (["--gpus-per-trial", "999", "--dry-run"], "--gpus-per-trial"),
    "more CPUs than there are": (["--cpus-per-trial", "999", "--dry-run"], "--cpus-per-trial"),
}


@pytest.mark.parametrize("case", BAD, ids=[case.replace(" ", "-") for case in BAD])
def test_bad_input_is_one_line_with_exit_code_2_and_nothing_written(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies" / "taken").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    started = time.monotonic()
    if not {"--task", "--resume"} & set(argv):
        argv = [*argv, "--task", "tiny"]
    code, _, err = run(argv, capsys)
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert expected in err
    assert sorted(tmp_path.rglob("*")) == before
    assert time.monotonic() - started < 60


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(["--task", "tiny", "--dry-run", "--cpus-per-trial", "1"], capsys)
    assert (code, err) == (0, "")
    assert "baselines, never stopped (5): ce, recall, median_frequency, lmp, jml" in out
    assert "search (16): 3 tune cross entropy" in out
    assert "rungs: epoch 1" in out
    assert "worst case: 33 trials, 66 epochs" in out
    assert "1 CPU each" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400)]
)
def test_durations_are_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


def test_help_comes_without_heavy_imports() -> None:
    script = (
        "import sys\n"
        "sys.argv = ['study.run', '--help']\n"
        "import runpy\n"
        "try:\n    runpy.run_module('study.run', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=HERE.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout


def test_every_flag_of_the_command_reaches_the_options() -> None:
    from dataclasses import fields

    from study.session import Options

    flags = {action.dest for action in parser()._actions} - {"help", "resume", "dry_run"}
    assert flags == {item.name for item in fields(Options)}
