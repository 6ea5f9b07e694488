"""`python -m benchmarks.gpu`: its dry form, and what a line that fails does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import LINES, Line, Miss, Setting, Skip

ROOT = Path(__file__).parents[1]
NEED_CUDA = {"tests", "prefetch", "memory"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_dry_form_runs_every_line_that_a_cpu_can() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    *lines, last = run.stdout.splitlines()
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    words = [line.split(maxsplit=4) for line in lines]
    assert [name for _, name, *_ in words] == [*LINES]
    statuses = {name: status for status, name, *_ in words}
    assert {name for name, status in statuses.items() if status == "skipped"} == NEED_CUDA
    assert {line.split(" s  ")[1] for line in lines if line.startswith("skipped")} == {
        "it needs CUDA"
    }
    assert last == f"{len(LINES) - len(NEED_CUDA)} pass, 0 fail, {len(NEED_CUDA)} skipped"


def _passes(_: Setting) -> str:
    return "one figure"


def _misses(_: Setting) -> str:
    raise Miss("two trainings differ")


def _fails(_: Setting) -> str:
    raise ValueError("a fault\nof two lines")


def _ends(_: Setting) -> str:
    os._exit(7)


def _hangs(_: Setting) -> str:
    subprocess.Popen(["sleep", "600"])
    time.sleep(600)
    return ""


def _skips(_: Setting) -> str:
    raise Skip("no second GPU")


def test_a_line_that_fails_ends_no_other_and_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "PRELOADED", ())
    monkeypatch.setattr(gpu, "DRY_PATIENCE", 1.0)
    waits = 60.0
    lines = {
        "first": Line(_passes, waits),
        "misses": Line(_misses, waits),
        "fails": Line(_fails, waits),
        "ends": Line(_ends, waits),
        "hangs": Line(_hangs, 0.2),
        "skips": Line(_skips, waits),
        "last": Line(_passes, waits),
    }
    monkeypatch.setattr(gpu, "LINES", lines)
    assert gpu.main(["--device", "cpu"]) == 1
    *shown, last = capsys.readouterr().out.splitlines()
    found = {line.split()[1]: (line.split()[0], line.split(" s  ")[1]) for line in shown}
    assert found == {
        "first": ("pass", "one figure"),
        "misses": ("fail", "two trainings differ"),
        "fails": ("fail", "ValueError: a fault of two lines"),
        "ends": ("fail", "its process ended with exit code 7"),
        "hangs": ("fail", "it took more than 0.2 s"),
        "skips": ("skipped", "no second GPU"),
        "last": ("pass", "one figure"),
    }
    assert last == "2 pass, 4 fail, 1 skipped"
    assert gpu.main(["--device", "cpu", "--only", "first", "skips"]) == 0


def test_without_a_device_the_lines_are_skipped_and_the_command_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "PRELOADED", ())
    monkeypatch.setattr(gpu, "LINES", {"device": Line(_misses, 60.0), "last": Line(_passes, 60.0)})
    assert gpu.main(["--device", "cuda"]) == 1
    shown = capsys.readouterr().out
    assert "skipped last" in shown and "there is no device" in shown


def test_all_lines_together_take_less_than_ten_minutes() -> None:
    assert sum(line.limit for line in LINES.values()) < 600
