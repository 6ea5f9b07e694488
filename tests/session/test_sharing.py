"""`--gpus-per-trial auto` in a session: who is measured, what is said, what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from own_trainings import task as own_task
from tiny_task import TINY

from study.core.errors import InputError
from study.engine import sharing as of_engine
from study.engine.cluster import Resources
from study.engine.nodes import NodeCheck
from study.scheduler.sharing import Share
from study.session.options import Options
from study.session.prepare import Prepared, describe_plan, prepare, resources_for
from study.session.sharing import found_gpus

SPACE: dict[str, Any] = {
    "study": {"num_trials": 2, "reference_trials": 1, "baselines": ["ce"], "rungs": None}
}
CPU_NODE: Mapping[str, float] = {"CPU": 4.0}
GPU_NODE: Mapping[str, float] = {"CPU": 16.0, "GPU": 2.0}


def prepared_for(tmp_path: Path, **given: Any) -> tuple[Prepared, Options]:
    given = {"space": SPACE, "task": "tiny", "gpus_per_trial": "auto", **given}
    options = Options.of({**given, "storage": tmp_path})
    return prepare(options), options


def found(
    prepared: Prepared, options: Options, nodes: list[Mapping[str, float]], grows: bool = False
) -> float | None:
    resources = resources_for(options, "here", nodes, grows=grows)
    return found_gpus(prepared.tasks_to_train, options, resources, nodes, NodeCheck(), grows=grows)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked of nodes: two trials fit for small images, one for larger ones."""
    calls: list[dict[str, Any]] = []

    def share_on_node(task: Any, with_gpu: Any, nodes: Any, **given: Any) -> Share:
        calls.append({"task": task, "nodes": with_gpu, **given})
        trials = 2 if task.data.size == (64, 96) else 1
        return Share(trials, f"{trials} of {task.data.size}")

    monkeypatch.setattr(of_engine, "share_on_node", share_on_node)
    return calls


def test_the_task_is_measured_and_its_number_is_that_of_a_trial(
    tmp_path: Path, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    prepared, options = prepared_for(tmp_path, cpus_per_trial=2, max_concurrent=3)
    capsys.readouterr()
    task = prepared.task.config
    trials = 2 if task.data.size == (64, 96) else 1  # type: ignore[union-attr]
    gpus = found(prepared, options, [CPU_NODE, GPU_NODE])
    assert gpus == 1 / trials
    (call,) = asked
    assert call["task"] == task and call["nodes"] == [GPU_NODE]
    assert (call["cpus_per_trial"], call["max_concurrent"], call["grows"]) == (2.0, 3, False)
    assert call["limit"] == of_engine.LIMIT
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("measuring how many trials share a GPU")
    assert lines[1].startswith(f"--gpus-per-trial auto: {trials} of ")
    resources = resources_for(options, "here", [GPU_NODE], found_gpus=0.5)
    assert isinstance(resources, Resources)
    assert (resources.gpus_per_trial, resources.slots, resources.ranks) == (0.5, 3, 1)


def test_a_budget_of_time_keeps_most_of_itself_for_trials(
    tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    prepared, options = prepared_for(tmp_path, time_budget="10m")
    found(prepared, options, [GPU_NODE])
    assert math.isclose(asked[0]["limit"], 60.0)


def test_the_target_of_a_proxy_is_measured_too_and_the_fewer_trials_count(
    tmp_path: Path, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    small = {**TINY, "data": {**TINY["data"], "size": [64, 96]}}
    prepared, options = prepared_for(tmp_path, task=small, confirm_task=TINY)
    assert found(prepared, options, [GPU_NODE]) == 1.0
    assert [call["task"].data.size for call in asked] == [(64, 96), (32, 48)]
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("--gpus-per-trial auto on ") for line in lines) == 2


@pytest.mark.parametrize(
    ("nodes", "given", "grows", "line"),
    [
        ([CPU_NODE], {}, False, "no node has a GPU, so trials train on CPUs"),
        (
            [CPU_NODE],
            {"device": "gpu", "max_concurrent": 2},
            True,
            "one trial has a GPU, as no node has one yet",
        ),
    ],
)
def test_without_a_gpu_a_line_says_where_trials_train(
    tmp_path: Path,
    asked: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    nodes: list[Mapping[str, float]],
    given: dict[str, Any],
    grows: bool,
    line: str,
) -> None:
    prepared, options = prepared_for(tmp_path, **given)
    assert found(prepared, options, nodes, grows) is None
    assert asked == []
    assert capsys.readouterr().out.splitlines()[-1] == f"--gpus-per-trial auto: {line}"


def test_a_finished_study_measures_nothing(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    prepared, options = prepared_for(tmp_path)
    prepared.state.finished = True
    assert found(prepared, options, [GPU_NODE]) is None
    assert asked == []


def test_a_training_of_the_users_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--gpus-per-trial: a training of your own cannot be"):
        prepared_for(tmp_path, task=own_task())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("gpus", "line"),
    [
        (0, "--gpus-per-trial auto: no node has a GPU, so trials train on CPUs"),
        (2, "--gpus-per-trial auto: how many trials share a GPU is measured when the study starts"),
    ],
)
def test_a_dry_run_says_that_it_will_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, line: str
) -> None:
    from study.engine import cluster

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(cluster, "this_machine", lambda: {"CPU": 8, "GPU": gpus})
    prepared, options = prepared_for(tmp_path)
    assert line in describe_plan(prepared, options).splitlines()
