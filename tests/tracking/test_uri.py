from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from study import tracking
from study.core.errors import InputError
from study.tracking.uri import sqlite_path


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, object]]]:
    """A web server on a free port, and what it answers on /health."""
    answer: dict[str, object] = {"code": 200, "body": b"OK"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(str(answer["code"])) if self.path == "/health" else 404)
            self.end_headers()
            self.wfile.write(bytes(answer["body"]))  # type: ignore[call-overload]

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=[0.02], daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", answer
    http.shutdown()
    http.server_close()


def test_a_healthy_server_is_accepted(server: tuple[str, dict[str, object]]) -> None:
    tracking.check(server[0], timeout=60.0)
    tracking.check(server[0] + "/", timeout=60.0)


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [(403, b"", "allowed-hosts"), (200, b"<html>", "html"), (500, b"", "500")],
)
def test_another_answer_is_refused(
    server: tuple[str, dict[str, object]], code: int, body: bytes, said: str
) -> None:
    server[1].update(code=code, body=body)
    with pytest.raises(InputError, match=said):
        tracking.check(server[0], timeout=60.0)


def test_a_refused_connection_is_said_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(InputError, match=r"--tracking-uri: .*refused"):
        tracking.check(f"http://127.0.0.1:{port}", timeout=60.0)


def test_a_silent_server_is_given_up_after_one_wait() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InputError, match="timed out"):
            tracking.check(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize(
    "uri",
    [
        *("mlruns", "file:///tmp/x", "databricks", "sqlite:///", "", "http://"),
        *("http://[", "http://127.0.0.1:999999", f"sqlite:///{'x' * 300}.db"),
    ],
)
def test_other_places_are_refused(uri: str) -> None:
    with pytest.raises(InputError, match="--tracking-uri"):
        tracking.check(uri, timeout=1.0)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all")
    with pytest.raises(InputError, match="SQLite database"):
        tracking.check(f"sqlite:///{tmp_path}/notes.txt")
    with pytest.raises(InputError, match="not a folder"):
        tracking.check(f"sqlite:///{tmp_path}/notes.txt/mlflow.db")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "loop.db").symlink_to(tmp_path / "loop.db")
    for path, says in (
        (tmp_path / "pipe.db", "must be a regular file"),
        (Path("/dev/zero"), "must be a regular file"),
        (tmp_path / "loop.db", "Too many levels of symbolic links"),
        (tmp_path / "loop.db" / "mlflow.db", "Too many levels of symbolic links"),
    ):
        with pytest.raises(InputError, match=says):
            tracking.check(f"sqlite:///{path}")


def test_the_default_is_a_file_in_the_storage_and_checking_makes_nothing(tmp_path: Path) -> None:
    uri = tracking.default_uri(tmp_path / "new" / "studies")
    assert uri == f"sqlite:///{tmp_path}/new/studies/mlflow.db"
    tracking.check(uri)
    assert not (tmp_path / "new").exists()


SWITCHES = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")


def test_the_ui_command_works_from_any_folder_and_without_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my studies"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for uri in (tracking.default_uri(folder), "sqlite:///my studies/mlflow.db"):
        words = shlex.split(tracking.ui_command(uri))
        assert words[:4] == ["env", *(f"{name}=true" for name in SWITCHES), sys.executable]
        assert words[4:7] == ["-m", "mlflow", "ui"]
        assert words[words.index("--backend-store-uri") + 1] == f"sqlite:///{folder}/mlflow.db"
    assert tracking.ui_command("http://head:5000") == "http://head:5000"


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, study.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("uri", ["http://me:hidden@127.0.0.1:1", "https://hidden@127.0.0.1:1"])
def test_a_password_in_the_address_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        tracking.check(uri)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["we#ird", "what?", "100%", "a%41b", "my studies"])
def test_the_file_is_the_one_that_the_database_library_takes(tmp_path: Path, name: str) -> None:
    from sqlalchemy import make_url

    uri = tracking.default_uri(tmp_path / name)
    assert make_url(uri).database == f"{tmp_path}/{name}/mlflow.db"
    assert sqlite_path(uri) == tmp_path / name / "mlflow.db"
    assert tracking.absolute(uri) == uri
    tracking.check(uri)
    words = shlex.split(tracking.ui_command(uri))
    shown = make_url(words[words.index("--backend-store-uri") + 1]).database
    assert shown is not None
    assert Path(shown).resolve() == tmp_path / name / "mlflow.db"
