"""The losses and metrics with their own packages alone, and what the commands say then."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from study.core.extras import MODULES

ROOT = Path(__file__).parents[1]
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({sorted(MODULES)!r}))\n"
COMMANDS = {
    "run": ["--task", "tiny", "--dry-run"],
    "train": ["config.yaml"],
    "export": ["name"],
    "status": ["name"],
    "track": ["name"],
    "evaluate": ["export.yaml", "."],
    "predict": ["export.yaml", ".", "--out", "masks"],
    "init": ["."],
    "data": ["tiny"],
    "data convert": ["coco", "a", "b"],
    "schema": [],
    "demo": ["--no-browser"],
}


def without_the_extra(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_modules_are_those_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {one.partition(">=")[0].partition("[")[0] for one in requirements}

    alone = names(project["dependencies"])
    assert set(MODULES.values()) == names(project["optional-dependencies"]["study"]) - alone
    installed = packages_distributions()
    for module, package in MODULES.items():
        assert package in {name.lower().replace("_", "-") for name in installed[module]}


@pytest.mark.slow
def test_losses_and_metrics_work_without_the_extra(tmp_path):
    code = """
import torch
from study.losses import PRESETS, build_loss, class_counts
from study.metrics import SegmentationMetrics, build_decision

labels = torch.randint(0, 3, (2, 8, 8))
counts = class_counts(labels, 3)
for name in PRESETS:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    teacher = {"teacher": torch.randn(2, 3, 8, 8).softmax(1)} if name.endswith("kd") else {}
    build_loss(name, num_classes=3, class_counts=counts)(logits, labels, **teacher).backward()
metrics = SegmentationMetrics(3, class_counts=counts.sum(0), calibration=True)
metrics.update(torch.randn(2, 3, 8, 8), labels)
with open("export.yaml", "w") as file:
    file.write("decision: {tau: 0.5, log_prior: [-1.0, -1.1, -1.2]}")
decision = build_decision("export.yaml")
print(len(metrics.compute()), decision(torch.randn(2, 3, 8, 8)).shape)
"""
    done = without_the_extra(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 8, 8])" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_names_the_extra_in_one_line(command, tmp_path):
    (tmp_path / "config.yaml").write_text("task: tiny\nloss: {}\n")
    (tmp_path / "export.yaml").write_text("task: tiny\nloss: {}\n")
    before = sorted(tmp_path.iterdir())
    code = "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    module, *subcommand = command.split()
    done = without_the_extra(code, tmp_path, f"study.{module}", *subcommand, *COMMANDS[command])
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the package ")
    assert line.endswith(
        ", of the extra `study`, is missing; pip install 'segmentation-loss-study[study]', "
        "or in a clone pip install -e '.[study]'"
    )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run_study", "load"])
def test_names_of_the_package_name_the_extra(name, tmp_path):
    done = without_the_extra(f"import study\nstudy.{name}", tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: study.{name}: the package ")
    assert "pip install 'segmentation-loss-study[study]'" in last


def test_another_package_that_is_missing_is_told_as_it_is(tmp_path):
    code = """
from study.core.console import exit_code
exit_code(lambda: __import__("no_such_package"))
"""
    done = without_the_extra(code, tmp_path)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_package'"
