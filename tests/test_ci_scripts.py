"""What CI and the hooks run is there, and is what pyproject.toml and CONTRIBUTING.md say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.core.yaml_file import read_yaml

ROOT = Path(__file__).parents[1]
HOOKS = ROOT / ".pre-commit-config.yaml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def _hooks() -> dict[str, dict[str, Any]]:
    return {hook["id"]: hook for repo in read_yaml(HOOKS).data["repos"] for hook in repo["hooks"]}


@pytest.mark.parametrize("name", ["run", "long"])
def test_a_script_can_be_run(name: str) -> None:
    script = ROOT / ".ci" / name
    assert os.access(script, os.X_OK)
    for file in (script, ROOT / ".ci" / "fresh_clone.sh"):
        subprocess.run(["bash", "-n", file], check=True)
    assert f".ci/{name}" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_long_script_runs_benchmarks_that_are_there_and_what_is_marked_long() -> None:
    script = (ROOT / ".ci" / "long").read_text(encoding="utf-8")
    assert 'step "${commands[1]} -m long"' in script
    listed = re.search(r"^for benchmark in (.*?); do$", script, flags=re.MULTILINE | re.DOTALL)
    assert listed is not None
    names = {entry.split()[0] for entry in shlex.split(listed[1].replace("\\\n", ""))}
    assert names and all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in names)


@pytest.mark.parametrize(("expression", "runs"), [("", False), ("not slow", False), ("long", True)])
def test_what_is_long_runs_where_it_is_asked_for(
    expression: str, runs: bool, request: pytest.FixtureRequest
) -> None:
    request.node.add_marker("long")
    items, left_out = [request.node], []

    def deselected(items: list[pytest.Item]) -> None:
        left_out.extend(items)

    config = SimpleNamespace(
        option=SimpleNamespace(markexpr=expression),
        hook=SimpleNamespace(pytest_deselected=deselected),
    )
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    assert conftest is not None
    conftest.pytest_collection_modifyitems(config, items)
    assert (items, left_out) == (([request.node], []) if runs else ([], [request.node]))


def test_the_workflow_runs_every_check_on_three_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = {line.rpartition(" :: ")[2] for line in project["classifiers"]}
    workflow = read_yaml(WORKFLOW).data
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    (versions,) = job["strategy"]["matrix"].values()
    assert versions == ["3.11", "3.12", "3.13"]
    assert {version for version in listed if re.fullmatch(r"3\.\d+", version)} <= set(versions)
    setup, check = job["steps"][-2:]
    assert setup["with"] == {"python-version": "${{ matrix.python-version }}"}
    assert check["run"] == ".ci/run"


def test_no_hook_fetches_anything() -> None:
    assert {repo["repo"] for repo in read_yaml(HOOKS).data["repos"]} == {"local"}
    assert {hook["language"] for hook in _hooks().values()} == {"system"}


def test_the_hooks_are_the_checks_of_contributing() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    checks = re.findall(r"^(\.venv/bin/(?!python)[^#\n]*)", contributing, flags=re.MULTILINE)
    entries = {hook["entry"] for name, hook in _hooks().items() if name != "yaml"}
    assert entries == {check.replace("--check", "").strip() for check in checks}


@pytest.mark.slow
def test_the_yaml_hook_names_the_line_of_a_bad_file(tmp_path: Path) -> None:
    hook = _hooks()["yaml"]
    python, *arguments = shlex.split(hook["entry"])
    assert python == ".venv/bin/python"
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    files = [
        file
        for file in tracked
        if re.search(hook["files"], file) and not re.search(hook["exclude"], file)
    ]
    bad = tmp_path / "bad.yaml"
    bad.write_text("key: 1\nkey: 2\n", encoding="utf-8")
    for given, code in ((files, 0), ([*files, str(bad)], 1)):
        done = subprocess.run(
            [sys.executable, *arguments, *given],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert f"{bad}:2" in done.stderr
