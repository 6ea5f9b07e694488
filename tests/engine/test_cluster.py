"""How many trials a cluster holds: arithmetic on nodes, without Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from study.core.errors import InputError
from study.engine.cluster import fit, growth, host_and_port, show_token, where

Node = Mapping[str, float]
CPU_NODE = {"CPU": 2.0}
GPU_NODE = {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "options", "slots", "cpus", "gpus"),
    [
        ([CPU_NODE], {}, 2, 1, 0),
        ([CPU_NODE], {"cpus_per_trial": 2.0}, 1, 2, 0),
        ([CPU_NODE], {"max_concurrent": 1}, 1, 1, 0),
        ([GPU_NODE], {}, 2, 8, 1),
        ([GPU_NODE], {"gpus_per_trial": 0.5}, 4, 4, 0.5),
        ([GPU_NODE], {"gpus_per_trial": 0.5, "cpus_per_trial": 8.0}, 2, 8, 0.5),
        ([GPU_NODE, GPU_NODE, CPU_NODE], {}, 4, 8, 1),
        ([GPU_NODE, CPU_NODE], {"gpus_per_trial": 0.0}, 18, 1, 0),
        ([GPU_NODE], {"gpus_per_trial": 2.0}, 1, 16, 2),
        ([GPU_NODE], {"gpus_per_trial": 0.3, "cpus_per_trial": 1.0}, 6, 1, 0.3),
        ([{"CPU": 0.0}, GPU_NODE], {}, 2, 8, 1),
    ],
)
def test_slots_follow_the_nodes_and_what_a_trial_asks_for(
    nodes: list[Node], options: dict[str, float], slots: int, cpus: float, gpus: float
) -> None:
    resources = fit("here", nodes, **options)  # type: ignore[arg-type]
    assert (resources.slots, resources.cpus_per_trial, resources.gpus_per_trial) == (
        slots,
        cpus,
        gpus,
    )


@pytest.mark.parametrize(
    ("nodes", "options", "key"),
    [
        ([CPU_NODE], {"gpus_per_trial": 1.0}, "--gpus-per-trial"),
        ([CPU_NODE], {"cpus_per_trial": 3.0}, "--cpus-per-trial"),
        ([CPU_NODE], {"cpus_per_trial": 0.0}, "--cpus-per-trial: cpus-per-trial must be > 0"),
        ([{"CPU": 16.0}, CPU_NODE], {"cpus_per_trial": 20.0}, "the largest has 16 CPUs"),
        ([GPU_NODE], {"gpus_per_trial": 3.0}, "--gpus-per-trial"),
    ],
)
def test_what_no_node_can_hold_is_refused_by_name(
    nodes: list[Node], options: dict[str, float], key: str
) -> None:
    with pytest.raises(InputError, match=key):
        fit("here", nodes, **options)  # type: ignore[arg-type]


def test_a_cluster_counts_what_it_can_grow_to(tmp_path: Path) -> None:
    config = tmp_path / "ray_bootstrap_config.yaml"
    config.write_text(
        """
max_workers: 3
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}}
  gpu: {min_workers: 0, max_workers: 8, resources: {CPU: 16, GPU: 2}, node_config: {}}
"""
    )
    head = {"CPU": 0.0}
    assert growth([head], config) == [{"CPU": 16, "GPU": 2}] * 3
    assert growth([head, GPU_NODE], config) == [{"CPU": 16, "GPU": 2}] * 2
    assert fit("there", [head, *growth([head], config)]).slots == 6
    assert growth([head], tmp_path / "none.yaml") == []


def test_the_token_is_shown_where_there_is_one_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "unset")
    monkeypatch.delenv("RAY_AUTH_MODE")
    token = tmp_path / "auth_token"
    show_token(token)
    assert "RAY_AUTH_MODE" not in os.environ
    token.write_text("secret")
    show_token(token)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    show_token(token)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1", ":6379", "http://a:1", "127.0.0.1:²", "a:" + "1" * 5000, "a..b:1"],
    ids=range(7),
)
def test_what_is_no_host_and_port_is_bad_input(address: str) -> None:
    with pytest.raises(InputError, match=r"^--address: the address must be HOST:PORT, got"):
        host_and_port(address, "--address")
    if address:
        with pytest.raises(InputError, match=r"^--address: the address must be HOST:PORT, got"):
            where(address)  # as a dry run asks


@pytest.mark.parametrize(
    ("address", "parts"), [("head:6379", ("head", 6379)), ("[::1]:1", ("::1", 1))]
)
def test_a_host_and_a_port_are_taken_apart(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port(address, "--address") == parts


ALONE: list[Node] = [{"CPU": 0.0}]


def test_a_cluster_that_may_grow_is_taken_at_the_users_word() -> None:
    promised = fit("there", ALONE, max_concurrent=6, device="gpu", grows=True)
    assert (promised.slots, promised.held, promised.gpus_per_trial) == (6, 0, 1)
    assert "6 trials at once (its nodes hold 0 now), 1 CPU and 1 GPU each" in promised.text
    assert promised.slots_on([GPU_NODE] * 9) == 6
    limited = fit("there", [CPU_NODE] * 2, max_concurrent=3)
    assert (limited.slots, limited.held) == (3, 4)
    assert [limited.slots_on([CPU_NODE] * count) for count in (0, 1, 9)] == [0, 2, 3]
    free = fit("there", [CPU_NODE], grows=True)
    assert free.slots_on([CPU_NODE] * 3) == 6


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"device": "gpu"}, "--device: no node has 1 CPUs and 1 GPUs"),
        ({"ranks": 9}, "--ranks: no node has 9 CPUs and 0 GPUs"),
        ({"ranks": 9, "cpus_per_trial": 99.0}, "--cpus-per-trial: no node has 99 CPUs"),
        ({"device": "gpu", "grows": True}, "--max-concurrent N"),
        ({"max_concurrent": 6, "grows": True}, "--device gpu or --device cpu"),
        ({"max_concurrent": 6, "grows": True, "gpus_per_trial": None}, "none has a GPU yet"),
    ],
)
def test_what_the_nodes_cannot_hold_is_refused_by_its_option(
    options: dict[str, Any], key: str
) -> None:
    with pytest.raises(InputError, match=key):
        fit("there", [CPU_NODE], **options)


@pytest.mark.parametrize(("device", "gpus"), [("gpu", 1), ("cpu", 0), (None, 1)])
def test_the_device_decides_over_what_there_is(device: str | None, gpus: float) -> None:
    assert fit("here", [GPU_NODE, CPU_NODE], device=device).gpus_per_trial == gpus
    assert fit("here", [GPU_NODE], device="gpu", gpus_per_trial=0.5).gpus_per_trial == 0.5


@pytest.mark.parametrize(
    ("nodes", "options", "slots", "cpus", "gpus", "ranks", "threads"),
    [
        ([GPU_NODE], {"gpus_per_trial": 2.0}, 1, 16, 2, 2, 8),
        ([GPU_NODE, GPU_NODE], {"ranks": 2}, 2, 16, 2, 2, 8),
        ([GPU_NODE], {"ranks": 2, "device": "gpu", "cpus_per_trial": 4.0}, 1, 4, 2, 2, 2),
        ([GPU_NODE], {"ranks": 2, "device": "cpu"}, 8, 2, 0, 2, 1),
        ([CPU_NODE], {"ranks": 2}, 1, 2, 0, 2, 1),
        ([CPU_NODE], {"ranks": 2, "cpus_per_trial": 1.0}, 2, 1, 0, 2, 1),
        ([GPU_NODE], {"gpus_per_trial": 0.5}, 4, 4, 0.5, 1, 4),
    ],
)
def test_the_ranks_of_a_trial_share_what_it_gets(
    nodes: list[Node],
    options: dict[str, Any],
    slots: int,
    cpus: float,
    gpus: float,
    ranks: int,
    threads: int,
) -> None:
    found = fit("here", nodes, **options)
    assert (found.slots, found.cpus_per_trial, found.gpus_per_trial) == (slots, cpus, gpus)
    assert (found.ranks, found.num_threads) == (ranks, threads)
    assert found.text.endswith(f", in {ranks} ranks") == (ranks > 1)
