"""python -m study.run: bad input is one line and exit code 2, a dry run starts nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bad_input.regenerate import COMMANDS
from refusals import AWAY, is_refused
from tiny_task import TINY

from study.engine import cluster
from study.engine.connection import Connection
from study.run import main

HERE = Path(__file__).parent


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {AWAY}))
def test_bad_input_is_one_line_with_exit_code_2_and_nothing_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Ray starts meanwhile, which would take most of the time: its address alone is read."""
    monkeypatch.setattr(Connection, "begin", lambda self: cluster.where(self._address))
    is_refused(name, tmp_path)


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    code, out, err = run(["--task", "tiny", "--dry-run", "--cpus-per-trial", "1"], capsys)
    assert (code, err) == (0, "")
    names = "ce, recall, inverse_sqrt, median_frequency, lmp, jml"
    assert f"baselines, never stopped (6): {names}" in out
    assert "search (16): 4 tune cross entropy" in out
    options = "options: loss/class_weights 2, loss/recall 3, loss/pooling 2, loss/jaccard 2"
    assert f"{options}; the random part takes those that the fewest trials had" in out
    assert "rungs: epoch 1" in out
    assert "\nwarning: in no image of test, so not judged: SignSymbol, Bicyclist\n" in out
    assert "worst case: 37 trials, 74 epochs" in out
    assert out.splitlines()[-1].startswith("a new Ray on this machine: ")
    assert "1 CPU each" in out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_warns_of_windows_beyond_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    task = {**TINY, "augment": {"crop": [64, 64]}, "batch_size": 100}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    code, out, _ = run(["--task", "task.yaml", "--dry-run"], capsys)
    assert code == 0
    assert "warning: the crop of 64x64 is larger than the images of 32x48: at least 62% of" in out
    assert "warning: batch_size 100 is larger than train" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the Ray cluster running here (10.0.0.1:6379)"),
        (["--address", "auto"], "the Ray cluster at 10.0.0.1:6379"),
        (["--address", "10.0.0.2:6379"], "the Ray cluster at 10.0.0.2:6379"),
    ],
)
def test_a_dry_run_names_the_cluster_that_the_study_would_join(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    from study.engine import cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "address_of_ray_start", lambda: "10.0.0.1:6379")
    code, out, err = run(["--task", "tiny", "--dry-run", *arguments], capsys)
    assert (code, err) == (0, "")
    assert (
        out.splitlines()[-1]
        == f"{said}: as many trials at once as its nodes hold; 5 seeds if its nodes have GPUs"
    )


@pytest.mark.slow
def test_help_comes_without_heavy_imports() -> None:
    script = (
        "import sys\n"
        "sys.argv = ['study.run', '--help']\n"
        "import runpy\n"
        "try:\n    runpy.run_module('study.run', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'numpy', 'boto3'} & set(sys.modules)\n"
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
