"""The measurement of `--gpus-per-trial auto` on a node: whom it asks, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from tiny_task import CONVOLUTION, TINY, tiny

import study
from study.engine import sharing
from study.engine.nodes import NodeCheck
from study.engine.ray_internals import Node
from study.engine.sharing import found_here, room_of, share_on_node
from study.scheduler.sharing import Room, Share
from study.training.sharing import NotMeasured, Reading

TASK = tiny().trained_here
GPU_NODE = {"CPU": 16.0, "GPU": 2.0}
SMALL_NODE = {"CPU": 4.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "given", "room"),
    [
        ([GPU_NODE], {}, Room(4)),  # 8 each, of which no more than 4 can matter
        ([GPU_NODE, SMALL_NODE], {}, Room(2)),
        ([{"CPU": 1.0, "GPU": 2.0}], {}, Room(0)),
        ([GPU_NODE], {"cpus_per_trial": 4.0}, Room(2)),
        ([GPU_NODE], {"cpus_per_trial": 0.0}, Room(4)),
        ([GPU_NODE], {"max_concurrent": 2}, Room(4, most=1)),
        ([GPU_NODE], {"max_concurrent": 3}, Room(4, most=2)),
        ([GPU_NODE], {"max_concurrent": 2, "grows": True}, Room(4)),
    ],
)
def test_the_room_of_a_gpus_trials(
    nodes: list[dict[str, float]], given: dict[str, Any], room: Room
) -> None:
    given = {"cpus_per_trial": None, "max_concurrent": None, "grows": False} | given
    assert room_of(nodes, **given) == room


class FakeRay:
    """A cluster of three nodes whose task answers at once, never, or with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        self.answer = answer
        self.on: list[tuple[str | None, int]] = []
        self.cancelled: list[Any] = []
        self.nodes = [
            Node("a", "first", {"CPU": 16.0}),
            Node("b", "second", {"CPU": 16.0, "GPU": 2.0}),
            Node("c", "third", {"CPU": 12.0, "GPU": 2.0}),
        ]
        monkeypatch.setattr(sharing, "nodes_up", lambda: self.nodes)
        monkeypatch.setattr(sharing, "on_node", self.on_node)
        monkeypatch.setattr(ray, "wait", self.wait)
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(ray, "cancel", self.cancel)

    def on_node(self, node: str | None, function: Callable[[], Any], *, gpus: int) -> str:
        self.on.append((node, gpus))
        return "ref"

    def wait(self, refs: list[str], timeout: float) -> tuple[list[str], list[str]]:
        if self.answer is KeyboardInterrupt:
            raise KeyboardInterrupt
        return ([], refs) if self.answer is None else (refs, [])

    def get(self, ref: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self, ref: str, *, force: bool) -> None:
        self.cancelled.append((ref, force))


def ask(**given: Any) -> Share:
    return share_on_node(TASK, [GPU_NODE], NodeCheck(), **given)


def test_a_node_with_the_fewest_cpus_for_a_gpu_is_asked_for_a_whole_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = FakeRay(monkeypatch, Share(2, "measured"))
    assert ask() == Share(2, "measured")
    assert there.on == [("c", 1)]
    assert there.cancelled == []


def test_the_first_node_that_joins_is_asked_where_none_has_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = FakeRay(monkeypatch, Share(2, "measured"))
    there.nodes = there.nodes[:1]
    assert ask().trials == 2
    assert there.on == [(None, 1)]


def test_a_measurement_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    there = FakeRay(monkeypatch, None)
    monkeypatch.setattr(sharing, "START", 0.0)
    share = ask(limit=0.0)
    assert share.trials == 1
    assert "could not be measured: no GPU has answered in time" in share.text
    assert there.cancelled == [("ref", True)]


def test_a_measurement_whose_process_fails_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeRay(monkeypatch, ray.exceptions.WorkerCrashedError())
    share = ask()
    assert share.trials == 1 and "could not be measured: its process fails: " in share.text


def test_an_interrupt_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    there = FakeRay(monkeypatch, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert there.cancelled == [("ref", True)]


@pytest.mark.parametrize(("cpus_per_trial", "threads"), [(None, [6, 3, 2]), (2.0, [2, 2, 2])])
def test_trainings_have_the_threads_of_trials_and_the_epochs_of_the_first(
    monkeypatch: pytest.MonkeyPatch, cpus_per_trial: float | None, threads: list[int]
) -> None:
    asked: list[dict[str, Any]] = []

    def measure(task: Any, trainings: int, **given: Any) -> Reading:
        asked.append(given)
        return Reading(trainings, 100.0 * trainings, 1, 1, 100, steps=5 * trainings)

    monkeypatch.setattr(sharing, "measure", measure)
    assert found_here(TASK, Room(4), 6.0, cpus_per_trial, 100.0, "cpu").trials == 3
    assert [each["num_threads"] for each in asked] == threads
    assert [each["steps"] for each in asked] == [None, 5, 10]
    assert len({each["until"] for each in asked}) == 1


def test_without_a_gpu_for_torch_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def measure(*_: Any, **__: Any) -> Reading:
        raise NotMeasured("not to be asked")

    monkeypatch.setattr(sharing, "measure", measure)
    share = found_here(TASK, Room(4), 6.0, None, 100.0, "cuda")
    assert share.trials == 1 and share.text.endswith("torch finds no GPU there")


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_study_on_simulated_gpus_measures_and_keeps_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First as it is, where torch finds no GPU; then measured on the CPU, in a task of Ray."""
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("PYTHONPATH", f"{tests.parent}:{tests}")
    started, asked = ray.init, sharing.share_on_node

    def with_gpu(**options: Any) -> Any:
        return started(**options, num_cpus=4, num_gpus=1)

    def on_the_cpu(*given: Any, **options: Any) -> Share:
        return asked(*given, **options, device="cpu")

    monkeypatch.setattr(ray, "init", with_gpu)
    space = {
        "study": {
            "num_trials": 1,
            "reference_trials": 1,
            "baselines": ["ce"],
            "rungs": None,
            "confirm": {"top": 1, "num_seeds": 1},
        }
    }
    task = {**TINY, "model": CONVOLUTION}
    for name, ends in (("blind", "torch finds no GPU there"), ("measured", "")):
        if name == "measured":
            monkeypatch.setattr(sharing, "share_on_node", on_the_cpu)
        finished = study.run_study(
            space, task, storage=tmp_path, name=name, gpus_per_trial="auto", cpus_per_trial=1.0
        )
        ray.shutdown()
        (line,) = [
            line
            for line in capsys.readouterr().out.splitlines()
            if line.startswith("--gpus-per-trial auto: ")
        ]
        assert finished.state.finished
        gpus = finished.state.sessions[0].gpus_per_trial
        if ends:
            assert line.endswith(ends) and gpus == 1.0
        else:
            assert "images/s for one trial" in line
            assert {1.0: "one trial has", 0.5: "2 trials", 0.3333: "3 trials"}[gpus] in line
