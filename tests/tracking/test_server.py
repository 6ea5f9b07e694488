"""MLflow over the network: a server that is slow, away, wrong, forgetful. In the end it holds what
it would have held without, and nothing twice."""

from __future__ import annotations

import contextlib
import io
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledgers import chained, make_study
from tracking_server import ERROR, HANG, LATE, LOST, SLOW, TABLES, WELL, Proxy, Server

from study import track
from study.ledger.journal import LEDGER
from study.tracking.follow import Follower, Waits

pytestmark = pytest.mark.slow

WAITS = Waits(look=0.05, failure=0.05, longest=0.2, grace=30.0)
Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished study the lines of these trials: baselines, a reference, trials that were
    completed, stopped, failed, resumed, and two confirmations."""
    folder = make_study(tmp_path_factory.mktemp("studies") / "followed", num_seeds=1)
    chosen = {f"t{n:04d}".encode() for n in (0, 1, 3, 5, 8, 9, 12, 14, 21, 22)}
    lines = (folder / LEDGER).read_bytes().splitlines(keepends=True)
    of = [re.search(rb'"trial": "(t\d+)"', line) for line in lines]
    kept = [line for line, it in zip(lines, of, strict=True) if it is None or it[1] in chosen]
    kept = [
        re.sub(rb"t\d{4}", lambda name: name[0] if name[0] in chosen else b"t0000", line)
        if b'"kind": "select"' in line
        else line
        for line in kept
    ]
    (folder / LEDGER).write_bytes(chained(kept))
    for name in ("exports/best_miou.yaml", "plots/curves.png", "plots/t0021/a.png", "report.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def undisturbed(server: Server, study: Path) -> Rows:
    """What a server holds that nothing happens to."""
    server.empty()
    assert track.main([str(study), "--tracking-uri", f"http://127.0.0.1:{server.port}"]) == 0
    return server.rows()


@pytest.fixture
def proxy(server: Server, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A way to the server, which is empty; requests are given up after two seconds."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    server.empty()
    proxy = Proxy(server)
    yield proxy
    proxy.refuse()


class Growing:
    """A copy of a study whose ledger is written bit by bit, and a follower of it."""

    def __init__(self, study: Path, folder: Path, uri: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.lines = (study / LEDGER).read_bytes().splitlines(keepends=True)
        for path in study.iterdir():
            if path.name not in (LEDGER, "lock", "tracking.lock", "evidence"):
                (folder / path.name).symlink_to(path)
        self.follower = Follower(folder, uri, waits=WAITS)
        self._written = 0
        self._closing = threading.Event()
        self._done: list[bool] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        self._done.append(self.follower.run(self._closing))

    def __enter__(self) -> Growing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(60)

    def grow(self, share: float, seconds: float = 0.5) -> None:
        """Up to this share of the lines, a few at a time."""
        until = round(share * len(self.lines))
        steps = range(self._written, until, 8)
        with open(self.folder / LEDGER, "ab", buffering=0) as file:
            for start in steps:
                file.write(b"".join(self.lines[start : min(start + 8, until)]))
                time.sleep(seconds / len(steps))
        self._written = until

    def end(self) -> bool:
        """The driver has ended; whether all is sent."""
        self._closing.set()
        self._thread.join(120)
        return self._done == [True]


@pytest.fixture
def growing(study: Path, tmp_path: Path, proxy: Proxy) -> Iterator[Growing]:
    with Growing(study, tmp_path / study.name, proxy.uri) as growing:
        yield growing


def _until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def _all_sent(growing: Growing) -> bool:
    projection = growing.follower.projection
    return projection.num_lines > 0 and projection.num_unsent == 0


def test_a_slow_server_is_given_more_at_a_time(
    growing: Growing, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    proxy.all(SLOW)
    growing.grow(1.0, seconds=2.0)
    proxy.well()
    assert growing.end()
    assert server.rows() == undisturbed
    batches = sum(path.endswith("log-batch") for _, path in proxy.requests)
    reports = sum(b'"kind": "report"' in line for line in growing.lines)
    assert batches < reports / 2


def test_a_server_that_is_away_for_a_while_misses_nothing(
    growing: Growing, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    growing.grow(0.3)
    _until(lambda: server.sql("SELECT 1 FROM runs"))
    proxy.refuse()
    growing.grow(0.7)
    _until(lambda: growing.follower.projection.num_unsent > 0)
    proxy.open()
    growing.grow(1.0)
    assert growing.end()
    assert server.rows() == undisturbed


def test_faults_at_random_change_nothing(
    growing: Growing, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    rng = random.Random(0)
    fates = random.Random(1).sample([ERROR] * 5 + [LOST] * 9 + [HANG], 15)

    def fault(method: str, path: str) -> str:
        return fates.pop() if fates and rng.random() < 0.4 else WELL

    proxy.fault = fault
    growing.grow(1.0, seconds=2.0)
    assert growing.end()
    assert fates == []
    assert server.rows() == undisturbed


@pytest.mark.parametrize("path", ["experiments/create", "runs/create", "log-batch", "runs/update"])
def test_what_was_carried_out_is_not_repeated_when_its_answer_is_lost(
    growing: Growing, proxy: Proxy, server: Server, undisturbed: Rows, path: str
) -> None:
    if path != "experiments/create":  # but of a trial's run, not of the study's own
        growing.grow(0.1)
        _until(lambda: server.sql("SELECT 1 FROM runs") and _all_sent(growing))
    proxy.once(LOST, "POST", path)
    growing.grow(0.3)
    assert growing.end()
    made = sum(path == "/api/2.0/mlflow/runs/create" for _, path in proxy.requests)
    assert made == len(server.rows()) == len(server.sql("SELECT 1 FROM runs"))
    ids = {trial: row["info"][0] for trial, row in server.rows().items()}
    assert ids == {trial: undisturbed[trial]["info"][0] for trial in ids}


def test_a_run_that_is_made_long_after_it_was_asked_for_does_not_stay(
    growing: Growing, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    growing.grow(0.1)
    _until(lambda: _all_sent(growing))
    proxy.once(LATE, "POST", "runs/create")
    before = len(proxy.requests)
    growing.grow(0.2)
    made = "/api/2.0/mlflow/runs/create"
    _until(lambda: [path for _, path in proxy.requests[before:]].count(made) >= 2)
    proxy.well()
    growing.grow(1.0)
    assert growing.end()
    assert len(server.sql("SELECT 1 FROM runs")) == len(undisturbed) + 1
    assert server.rows() == undisturbed


def test_a_server_that_begins_anew_is_given_everything_again(
    growing: Growing, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    growing.grow(0.5)
    _until(lambda: server.sql("SELECT 1 FROM runs"))
    proxy.refuse()
    server.empty()
    server.sql("INSERT INTO experiments (name, lifecycle_stage) VALUES ('another', 'active')")
    proxy.open()
    growing.grow(1.0)
    assert growing.end()
    assert server.rows() == undisturbed


def test_a_server_that_is_gone_for_good_holds_nobody_up(
    study: Path, proxy: Proxy, server: Server, undisturbed: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.refuse()
    closing = threading.Event()
    closing.set()
    follower = Follower(study, proxy.uri, waits=Waits(failure=0.05, grace=0.5))
    assert not follower.run(closing)
    lines = (study / LEDGER).read_bytes().count(b"\n")
    assert follower.projection.num_unsent == follower.projection.num_lines == lines
    proxy.open()
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 0
    assert server.rows() == undisturbed
    assert capsys.readouterr().out.startswith(f"{lines} ledger lines and 10 trials are in MLflow")


def test_a_command_that_loses_its_server_says_what_is_left(
    study: Path, proxy: Proxy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.tracking.follow.PATIENCE", Waits(failure=0.05, grace=0.3))
    proxy.fault = lambda method, path: WELL if path.endswith(("/health", "by-name")) else ERROR
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("0 ledger lines ")
    assert "the same command tries them again" in said.err
    assert "Traceback" not in said.err


def test_a_server_that_cannot_store_files_has_all_the_rest(
    study: Path,
    proxy: Proxy,
    server: Server,
    undisturbed: Rows,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("study.tracking.follow.PATIENCE", Waits(failure=0.05, grace=0.3))
    proxy.fault = lambda method, path: ERROR if "mlflow-artifacts" in path else WELL
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 1
    said = capsys.readouterr()
    assert re.match(r"\d+ ledger lines and 10 trials are in MLflow\n", said.out)
    reason, last = said.err.splitlines()
    assert "config.yaml" in reason
    assert last == "not all files are; the same command tries them again"
    without = {trial: {**row, "files": []} for trial, row in undisturbed.items()}
    assert server.rows() == without
    tries = [path for method, path in proxy.requests if "mlflow-artifacts" in path]
    assert len({path for path in tries if path.endswith("config.yaml")}) == 1
    told: list[str] = []
    closing = threading.Event()
    closing.set()
    waits = Waits(failure=0.05, grace=0.3)
    out = io.StringIO()
    assert not Follower(study, proxy.uri, waits=waits, out=out, say=told.append).run(closing)
    assert len(told) == 1 and told[0].startswith("MLflow stores no files: ")
    proxy.well()
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 0
    assert server.rows() == undisturbed


def test_a_partial_experiment_is_repaired(
    study: Path, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 0
    runs = dict(server.sql("SELECT value, run_uuid FROM tags WHERE key = 'trial_id'"))
    server.sql("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", runs["t0001"])
    for table in TABLES[:5]:
        server.sql(f"DELETE FROM {table} WHERE run_uuid = ?", runs["t0000"])
    server.sql(
        "UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ?", runs["t0003"]
    )
    server.sql("DELETE FROM metrics WHERE run_uuid = ? AND step IN (2, 5)", runs["t0008"])
    server.sql("UPDATE tags SET value = 'x' WHERE run_uuid = ? AND key = 'family'", runs["t0005"])
    server.sql("UPDATE params SET value = 'x' WHERE run_uuid = ?", runs["t0012"])
    server.sql("DELETE FROM params WHERE run_uuid = ?", runs["t0014"])
    for path in (server.folder / "artifacts").glob(f"*/{runs['t0021']}/artifacts/*"):
        path.unlink()
    server.twin(runs["t0009"])
    with contextlib.suppress(AssertionError):
        assert server.rows() == undisturbed
        raise RuntimeError("nothing is broken")
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 0
    assert server.rows() == undisturbed


def test_a_parent_that_is_missing_is_made_again_and_has_its_children(
    study: Path, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 0
    parent = server.sql("SELECT run_uuid FROM tags WHERE value = 'study'")[0][0]
    for table in TABLES[:5]:
        server.sql(f"DELETE FROM {table} WHERE run_uuid = ?", parent)
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 0
    assert server.rows() == undisturbed


def test_a_second_look_at_a_finished_study_costs_few_requests(
    study: Path, proxy: Proxy, server: Server, undisturbed: Rows
) -> None:
    assert track.main([str(study), "--tracking-uri", proxy.uri]) == 0
    first = len(proxy.requests)
    assert first < 6 * len(undisturbed) + 15
    proxy.requests.clear()
    closing = threading.Event()
    closing.set()
    assert Follower(study, proxy.uri).run(closing)
    assert len(proxy.requests) < 15
    assert server.rows() == undisturbed
