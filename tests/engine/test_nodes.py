"""Real nodes: one that cannot train, or would train differently, is named and gets no trial."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ledgers import numbers
from ray.exceptions import WorkerCrashedError

from benchmarks.raylets import Cluster, Node, kill
from study import train
from study.core.errors import InputError
from study.engine import cluster as clusters
from study.engine import nodes
from study.engine.nodes import NodeCheck, difference
from study.engine.probe import Probe
from study.engine.ray_internals import Node as NodeUp
from study.ledger.journal import LEDGER, read
from study.ledger.records import FaultRecord
from study.ledger.state import State, fold
from study.scheduler.retries import LOST, UNFIT

ROOT = Path(__file__).parents[2]
GOOD, BAD, BETTER = "127.0.0.2", "127.0.0.3", "127.0.0.5"
HERE = {"Python": "3.11", "Ray": "2.60.0", "torch": "2.15.0", "package": "ab"}
SPACE: dict[str, Any] = {
    "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
    "study": {
        "num_trials": 1,
        "reference_trials": 1,
        "baselines": ["ce"],
        "rungs": None,
        "confirm": {"top": 1, "num_seeds": 1},
    },
}
PATIENCE = 400.0
# A node on which this package is not installed: the installation that all share is hidden.
HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "study":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
"""


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ({}, ""),
        (
            {"torch": "2.14.0"},
            "it has torch 2.14.0 (here 2.15.0)",
        ),
        (
            {"Python": "3.12", "Ray": "2.61.0"},
            "it has Python 3.12 (here 3.11) and Ray 2.61.0 (here 2.60.0)",
        ),
        (
            {"package": "cd"},
            "it has another version of this package (its .py files are not those here)",
        ),
        (
            {"error": "ImportError: no"},
            "this package cannot be imported there: ImportError: no",
        ),
    ],
)
def test_what_a_node_lacks_is_said(there: dict[str, str], why: str) -> None:
    assert difference(HERE | there, HERE) == why


class FakeRay:
    """A cluster of nodes that answer when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **up: dict[str, float]) -> None:
        self.up = up
        self.answers: dict[str, Any] = {}
        self.probes: list[Probe] = []
        monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(nodes, "nodes_up", self.nodes_up)
        monkeypatch.setattr(nodes, "on_node", self.on_node)
        monkeypatch.setattr(nodes, "ask", self.probes.append)
        monkeypatch.setattr(ray, "wait", self.wait)
        monkeypatch.setattr(ray, "get", self.get)

    def nodes_up(self) -> list[NodeUp]:
        return [NodeUp(node, f"ip of {node}", resources) for node, resources in self.up.items()]

    def on_node(self, node: str, function: Callable[[], Any]) -> str:
        if function.__name__ == "find":
            return node
        function()
        return f"probe of {node}"

    def wait(self, refs: list[str], num_returns: int, timeout: float) -> tuple[list[str], None]:
        time.sleep(timeout)
        return [ref for ref in refs if ref in self.answers], None

    def get(self, ref: str) -> Any:
        answer = self.answers[ref]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def check() -> Iterator[NodeCheck]:
    found = NodeCheck()
    yield found
    found.close()


def test_nodes_that_could_hold_a_trial_are_checked_once_and_said_once(
    monkeypatch: pytest.MonkeyPatch, check: NodeCheck
) -> None:
    there = FakeRay(monkeypatch, head={}, good={"CPU": 1.0}, bad={"GPU": 1.0}, broken={"CPU": 1.0})
    there.answers = {
        "good": HERE,
        "bad": HERE | {"torch": "2.14.0"},
        "broken": WorkerCrashedError(),
    }
    before = check.checked
    assert before is None, "all are fit"
    check.begin(HERE)
    check.wait()
    assert check.checked == frozenset({"good"})
    assert check.unfit["bad"] == "ip of bad: it has torch 2.14.0 (here 2.15.0)"
    assert check.unfit["broken"].startswith("ip of broken: a process there fails: ")
    assert sorted(line.partition(":")[0] for line in check.news()) == [
        "node ip of bad gets no trial",
        "node ip of broken gets no trial",
    ]
    assert check.news() == []
    there.answers["late"] = {"error": "ImportError: no"}
    there.up["late"] = {"CPU": 1.0}
    assert check.why_unfit("late") == (
        "ip of late: this package cannot be imported there: ImportError: no"
    )
    assert len(check.news()) == 1
    assert check.why_unfit("good") == ""


def test_a_node_that_does_not_answer_is_unfit_until_it_does(
    monkeypatch: pytest.MonkeyPatch, check: NodeCheck
) -> None:
    there = FakeRay(monkeypatch, slow={"CPU": 1.0})
    check.begin(HERE)
    check.wait(0.1)
    assert check.unfit == {"slow": f"ip of slow: {nodes.SILENT}"}
    there.answers["slow"] = HERE
    check.wait()
    assert check.unfit == {}
    assert check.checked == frozenset({"slow"})


def test_a_node_that_is_gone_before_its_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, check: NodeCheck
) -> None:
    there = FakeRay(monkeypatch, gone={"CPU": 1.0})
    check.begin(HERE)
    check.wait(0.1)
    check.news()
    there.up.clear()
    there.answers["gone"] = WorkerCrashedError()
    check.wait()
    assert check.unfit == {}
    assert check.why_unfit("gone") == ""
    assert check.news() == []


def test_what_a_study_demands_is_asked_of_every_node_also_of_late_ones(
    monkeypatch: pytest.MonkeyPatch, check: NodeCheck
) -> None:
    there = FakeRay(monkeypatch, good={"CPU": 1.0}, bad={"GPU": 2.0}, old={"CPU": 1.0})
    there.answers = {"good": HERE, "bad": HERE, "old": HERE | {"Ray": "2.59.0"}}
    check.begin(HERE)
    check.wait()
    assert check.fit is not None
    assert set(check.fit) == {"good", "bad"}
    there.answers |= {"probe of good": "", "probe of bad": "it has other data"}
    there.answers |= {"probe of late": "", "late": HERE}
    check.demand(Probe(gpus=1))
    assert set(check.fit) == {"good"}
    assert check.closed["bad"] == "ip of bad: it has other data"
    assert {probe.gpus for probe in there.probes} == {0, 2}
    there.answers |= {"late and bad": HERE, "probe of late and bad": "it sees no storage"}
    there.up["late"] = {"CPU": 1.0}
    assert check.why_unfit("late") == ""
    assert set(check.fit) == {"good", "late"}
    there.up["late and bad"] = {"CPU": 1.0}
    assert check.why_unfit("late and bad") == "ip of late and bad: it sees no storage"
    assert set(check.fit) == {"good", "late"}
    there.up.pop("good")
    end = time.monotonic() + 10
    while "good" in check.fit and time.monotonic() < end:
        time.sleep(0.01)
    assert set(check.fit) == {"late"}


def test_a_node_that_reads_its_data_for_long_is_used_once_it_has(
    monkeypatch: pytest.MonkeyPatch, check: NodeCheck
) -> None:
    there = FakeRay(monkeypatch, quick={"CPU": 1.0}, slow={"CPU": 1.0})
    there.answers = {"quick": HERE, "slow": HERE, "probe of quick": ""}
    check.begin(HERE)
    check.wait()
    said: list[str] = []
    check.demand(Probe(), said.append, seconds=0.1)
    assert said == ["the nodes read the data, and are used as soon as they have ..."]
    assert set(check.fit or ()) == {"quick"}
    assert check.closed == {"slow": f"ip of slow: {nodes.PENDING}"}
    there.answers["probe of slow"] = ""
    check.wait()
    assert set(check.fit or ()) == {"quick", "slow"}
    assert not check.closed


def test_an_unfit_node_is_no_room_for_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    up = [NodeUp("ab", "10.0.0.2", {"CPU": 1.0}), NodeUp("cd", "10.0.0.3", {"CPU": 2.0})]
    monkeypatch.setattr(clusters, "nodes_up", lambda: up)
    no_autoscaler = Path("none.yaml")
    assert clusters.nodes({}, no_autoscaler) == [{"CPU": 1.0}, {"CPU": 2.0}]
    assert clusters.nodes({"cd": "10.0.0.3: why"}, no_autoscaler) == [{"CPU": 1.0}]
    with pytest.raises(InputError, match=r"^no node of the Ray cluster can train: node a; node b$"):
        clusters.nodes({"ab": "a", "cd": "b"}, no_autoscaler)


def without_package(folder: Path) -> str:
    """The PYTHONPATH of a node without this package."""
    (folder / "sitecustomize.py").write_text(HIDE)
    return str(folder)


def with_another_version(folder: Path) -> str:
    """The PYTHONPATH of a node with another version of this package, which trains differently."""
    shutil.copytree(ROOT / "study", folder / "study", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "search_spaces", folder / "search_spaces")
    optimiser = folder / "study" / "training" / "optim.py"
    optimiser.write_text(optimiser.read_text() + "\nVERSION = 2\n")
    return str(folder)


CANNOT_IMPORT = (
    "this package cannot be imported there: ModuleNotFoundError: No module named 'study'"
)
OTHER = "it has another version of this package (its .py files are not those here)"
BAD_KINDS = ((without_package, CANNOT_IMPORT), (with_another_version, OTHER))
ONE_KIND = (pytest.param(*BAD_KINDS[0], marks=pytest.mark.long), BAD_KINDS[1])


def join(cluster: Cluster, ip: str, path: str = str(ROOT)) -> Node:
    """A node with one CPU, where Python finds modules on this path."""
    environment = cluster.environment
    cluster.environment = {**environment, "PYTHONPATH": path}
    try:
        return cluster.join("--num-cpus=1", f"--node-ip-address={ip}")
    finally:
        cluster.environment = environment


def begin(
    cluster: Cluster, folder: Path, name: str = "s", epochs: int = 3
) -> subprocess.Popen[str]:
    task = yaml.safe_load((ROOT / "study" / "tasks" / "tiny.yaml").read_text())
    (folder / "task.yaml").write_text(yaml.safe_dump(task | {"budget": {"epochs": epochs}}))
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    files = ("space.yaml", "--task", "task.yaml", "--name", name)
    return subprocess.Popen(
        [sys.executable, "-m", "study.run", *files, "--address", cluster.address],
        cwd=folder,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def state(folder: Path, name: str = "s") -> State:
    path = folder / "studies" / name / LEDGER
    return fold(read(path)) if path.exists() else State()


def said_of(ip: str, lines: Sequence[str]) -> list[str]:
    """Why the node with this IP gets no trial, once for each line that says so."""
    found = [line.strip() for line in lines if line.startswith(f"node {ip} (")]
    return [line.partition(") gets no trial: ")[2] for line in found]


def faults(folder: Path) -> list[FaultRecord]:
    records = read(folder / "studies" / "s" / LEDGER)
    return [record for record in records if isinstance(record, FaultRecord)]


def wait(driver: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        if driver.poll() is not None or time.monotonic() > end:
            kill(driver.pid)
            raise AssertionError(driver.communicate())
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> State:
    """The study on a cluster with a good node alone."""
    folder = tmp_path_factory.mktemp("alone")
    with Cluster("--num-cpus=0", environment={"PYTHONPATH": str(ROOT)}) as cluster:
        join(cluster, GOOD)
        driver = begin(cluster, folder)
        try:
            out, err = driver.communicate(timeout=PATIENCE)
        finally:
            kill(driver.pid)
        assert (driver.returncode, err) == (0, ""), out + err
    return state(folder)


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_bad_nodes_among_good_ones_get_no_trial_and_no_number_changes(
    tmp_path: Path,
    cluster: Cluster,
    started: list[subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    join(cluster, GOOD)
    whys = {}
    for count, (make, why) in enumerate(BAD_KINDS, 3):
        (tmp_path / str(count)).mkdir()
        join(cluster, f"127.0.0.{count}", make(tmp_path / str(count)))
        whys[f"127.0.0.{count}"] = why
    driver = begin(cluster, tmp_path)
    started.append(driver)
    out, err = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, err) == (0, ""), out + err
    assert ": 1 trial at a time, 1 CPU each" in out
    for ip, why in whys.items():
        assert said_of(ip, out.splitlines()) == [why]
    assert not faults(tmp_path)
    export = tmp_path / "studies" / "s" / "exports" / "best_miou.yaml"
    assert train.main([str(export), "--device", "cpu"]) == 0
    assert "reproduced exactly" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("make", "why"), ONE_KIND)
def test_a_trial_that_waits_when_a_bad_node_joins_goes_back_from_it_unharmed(
    tmp_path: Path,
    cluster: Cluster,
    started: list[subprocess.Popen[str]],
    alone: State,
    make: Callable[[Path], str],
    why: str,
) -> None:
    good = join(cluster, GOOD)
    driver = begin(cluster, tmp_path)
    started.append(driver)
    wait(driver, lambda: any(t.epochs for t in state(tmp_path).trials.values()))
    good.kill()
    wait(driver, lambda: any(t.waits for t in state(tmp_path).trials.values()))
    (tmp_path / "bad").mkdir()
    join(cluster, BAD, make(tmp_path / "bad"))
    wait(driver, lambda: len(faults(tmp_path)) == 2)
    join(cluster, BETTER)
    out, err = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, err) == (0, ""), out + err
    assert [fault.cause for fault in faults(tmp_path)] == [LOST, UNFIT]
    assert faults(tmp_path)[1].reason.startswith(f"its node is unfit: {BAD} (")
    assert said_of(BAD, out.splitlines()) == [why]
    assert numbers(state(tmp_path)) == numbers(alone)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_bad_node_that_joins_before_a_trial_waits_gets_none(
    tmp_path: Path, cluster: Cluster, started: list[subprocess.Popen[str]], alone: State
) -> None:
    (tmp_path / "bad").mkdir()
    path = with_another_version(tmp_path / "bad")
    good = join(cluster, GOOD)
    driver = begin(cluster, tmp_path)
    started.append(driver)
    lines: list[str] = []
    assert driver.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(driver.stdout,), daemon=True)
    reader.start()
    join(cluster, BAD, path)  # while the driver starts, for the study is short
    wait(driver, lambda: said_of(BAD, lines) == [OTHER])
    wait(driver, lambda: any(t.epochs for t in state(tmp_path).trials.values()))
    good.kill()
    wait(driver, lambda: any(t.waits for t in state(tmp_path).trials.values()))
    join(cluster, BETTER)
    assert driver.wait(PATIENCE) == 0, lines
    assert [fault.cause for fault in faults(tmp_path)] == [LOST]
    assert numbers(state(tmp_path)) == numbers(alone)
