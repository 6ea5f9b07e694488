"""A real MLflow server and what its tables hold; a proxy before it that misbehaves as told."""

from __future__ import annotations

import http.client
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
WELL, SLOW, HANG, LATE = "well", "slow", "hang", "late"
ERROR, LOST = "error", "lost"
SLOW_SECONDS = 0.2
TABLES = ("runs", "metrics", "latest_metrics", "params", "tags", "experiments", "experiment_tags")
Fault = Callable[[str, str], str]
"""From a request's method and path to its fate: WELL, passed on; SLOW; HANG, never answered; LATE,
not answered, but passed on when the proxy is well again; ERROR, 500; LOST, carried out, and its
answer lost."""


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        return int(unused.getsockname()[1])


class Server:
    """An `mlflow server` of its own folder, one worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        with open(folder / "log", "w") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
                    *("--artifacts-destination", str(folder / "artifacts")),
                    *("--host", HOST, "--port", str(self.port)),
                ],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        while True:
            assert self._process.poll() is None, "the server has ended"
            try:
                connection = http.client.HTTPConnection(HOST, self.port, timeout=1)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.1)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Past the server, to its tables."""
        connection = sqlite3.connect(self.folder / "mlflow.db", timeout=20)
        with connection:
            found = connection.execute(statement, values).fetchall()
        connection.close()
        return found

    def empty(self) -> None:
        """As if it had been started on a new database."""
        for table in TABLES:
            self.sql(f"DELETE FROM {table}")

    def twin(self, run: str) -> None:
        """A second run with the same tags, as a repeated request makes one."""
        for table in ("runs", "tags"):
            names = [row[1] for row in self.sql(f"PRAGMA table_info({table})")]
            values = ", ".join("?" if name == "run_uuid" else name for name in names)
            self.sql(
                f"INSERT INTO {table} SELECT {values} FROM {table} WHERE run_uuid = ?",
                "f" * 32,
                run,
            )

    def rows(self) -> dict[str, dict[str, Any]]:
        """All that the tables and the files hold of each run that is not deleted, by trial id, the
        study's own under ''. Ids that MLflow draws are left out."""
        found: dict[str, dict[str, Any]] = {}
        for run, *info in self.sql(
            "SELECT run_uuid, name, status, start_time, end_time FROM runs "
            "WHERE lifecycle_stage = 'active'"
        ):
            tags = dict(self.sql("SELECT key, value FROM tags WHERE run_uuid = ?", run))
            parent = tags.pop("mlflow.parentRunId", None)
            trial = tags.get("trial_id", "")
            assert trial not in found, f"two runs of {trial}"
            points = self.sql(
                "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ? "
                "ORDER BY key, step, timestamp",
                run,
            )
            assert len(points) == len({point[:2] for point in points}), f"a point twice: {trial}"
            files = self.folder / "artifacts"
            found[trial] = {
                "info": info,
                "tags": {key: tags[key] for key in tags if not key.startswith("mlflow.user")},
                "params": sorted(self.sql("SELECT key, value FROM params WHERE run_uuid = ?", run)),
                "points": points,
                "last": sorted(
                    self.sql("SELECT key, step, value FROM latest_metrics WHERE run_uuid = ?", run)
                ),
                "parent": parent,
                "files": sorted(
                    (str(path.relative_to(folder)), path.read_bytes())
                    for folder in files.glob(f"*/{run}/artifacts")
                    for path in folder.rglob("*")
                    if path.is_file()
                ),
                "run": run,
            }
        for trial, run in found.items():
            assert run.pop("parent") == (found[""]["run"] if trial else None), trial
        for run in found.values():
            del run["run"]
        return found

    def close(self) -> None:
        os.killpg(self._process.pid, 9)
        self._process.wait()


class Proxy:
    """Between a client and a server; `fault` decides over each request. `requests` counts them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.fault: Fault = lambda method, path: WELL
        self.requests: list[tuple[str, str]] = []
        self.port = free_port()
        self._mended = threading.Event()
        self._passing = 0
        self._idle = threading.Condition()
        self._listening: ThreadingHTTPServer | None = None
        self.open()

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    def well(self) -> None:
        """No faults from here on; what hangs, is dropped."""
        self.fault = lambda method, path: WELL
        self._mended.set()
        self._mended = threading.Event()

    def all(self, fault: str) -> None:
        """The same fault for every request."""
        self.fault = lambda method, path: fault

    def once(self, fault: str, method: str, path: str) -> None:
        """A fault of the next request of this method whose path ends so."""
        left = [fault]

        def decide(its_method: str, its_path: str) -> str:
            if left and its_method == method and its_path.endswith(path):
                return left.pop()
            return WELL

        self.fault = decide

    def open(self) -> None:
        """Listen."""
        ThreadingHTTPServer.allow_reuse_address = True
        self._listening = ThreadingHTTPServer((HOST, self.port), self._handler())
        self._listening.daemon_threads = True
        threading.Thread(target=self._listening.serve_forever, args=[0.02], daemon=True).start()

    def refuse(self) -> None:
        """Listen no more: connections are refused, and the server has done what it was asked."""
        if self._listening is not None:
            self._mended.set()
            self._listening.shutdown()
            self._listening.server_close()
            with self._idle:
                self._listening = None
                assert self._idle.wait_for(lambda: self._passing == 0, 60)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def _serve(self) -> None:
                path = self.path.partition("?")[0]
                proxy.requests.append((self.command, path))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault, mended = proxy.fault(self.command, path), proxy._mended
                if fault in (HANG, LATE):
                    mended.wait(60)
                if fault == LATE:
                    self._pass_on(body)
                if fault == ERROR:
                    self._answer(500, [], b"out of order")
                if fault in (HANG, LATE, ERROR):
                    self.close_connection = True
                    return
                if fault == SLOW:
                    time.sleep(SLOW_SECONDS)
                status, headers, answer = self._pass_on(body)
                if fault == LOST:
                    self.close_connection = True
                else:
                    self._answer(status, headers, answer)

            def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                with proxy._idle:
                    if proxy._listening is None:
                        raise ConnectionAbortedError
                    proxy._passing += 1
                try:
                    return self._passed_on(body)
                finally:
                    with proxy._idle:
                        proxy._passing -= 1
                        proxy._idle.notify_all()

            def _passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                upstream = http.client.HTTPConnection(HOST, proxy.server.port, timeout=30)
                headers = {key: value for key, value in self.headers.items() if key != "Host"}
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                return answer.status, answer.getheaders(), content

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for key, value in headers:
                    if key.lower() == "content-type":
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
