"""A real MLflow server, and a proxy before it that misbehaves as it is told."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
WELL, SLOW, HANG, ERROR, LOST = "well", "slow", "hang", "error", "lost"
SLOW_SECONDS = 0.3
Fault = Callable[[str, str], str]
"""From a request's method and path to its fate: passed on (WELL), late (SLOW), never
answered (HANG), refused with 500 (ERROR), or carried out, and its answer lost (LOST)."""


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        return int(unused.getsockname()[1])


class Server:
    """An `mlflow server` of its own folder, one worker."""

    def __init__(self, folder: Path) -> None:
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
        """Listen no more: connections are refused."""
        if self._listening is not None:
            self._mended.set()
            self._listening.shutdown()
            self._listening.server_close()
            self._listening = None

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
                if fault == HANG:
                    mended.wait(60)
                if fault == ERROR:
                    self._answer(500, [], b"out of order")
                if fault in (HANG, ERROR):
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
