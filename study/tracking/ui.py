"""MLflow's pages of a study: the link to its ranked trials, and a server on this machine."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from study.core.errors import InputError
from study.core.telemetry import MLFLOW_OFF
from study.tracking.uri import sqlite_path

HOST = "127.0.0.1"
START_SECONDS = 180.0


def experiment_of(tracking_uri: str, task: str, study: str) -> str:
    """The id of the experiment that holds a study.

    Raises:
        InputError: if the study has no run there.
    """
    from study.tracking.store import prepare_environment

    prepare_environment()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    path = sqlite_path(tracking_uri)
    if path is None or path.is_file():  # an SQLite file would be made
        client = MlflowClient(tracking_uri=tracking_uri)
        try:
            found = client.get_experiment_by_name(task)
            wanted = f"tags.study = '{study}'"
            if found and client.search_runs([found.experiment_id], wanted, max_results=1):
                return str(found.experiment_id)
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"MLflow at {tracking_uri} does not answer: {reason}") from error
    raise InputError(
        f"study {study!r} is not in MLflow at {tracking_uri}",
        hint=f"`python -m study.track {shlex.quote(study)}` writes it there",
    )


def link(server: str, experiment: str, study: str, metric: str) -> str:
    """The page of a study's trials as one flat table, the best by a metric first."""
    query = {
        "searchFilter": f"tags.study = '{study}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": "false",
        "workflowType": "machine_learning",
    }
    asked = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?{asked}"


def free_port(wanted: int) -> int:
    """The port, or one that is free if something listens there."""
    for port in (wanted, 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise InputError("no port is free", key="--port")


@contextmanager
def serving(path: Path, port: int) -> Iterator[str]:
    """An MLflow server of a database file, on loopback and without telemetry; its address.

    Raises:
        InputError: if it does not start.
    """
    address = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--backend-store-uri"]
    command += [f"sqlite:///{path}", "--host", HOST, "--port", str(port)]
    environment = {**os.environ, **MLFLOW_OFF, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            until = time.monotonic() + START_SECONDS
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    said = [line.strip() for line in log if line.strip()][-1:]
                    raise InputError(f"MLflow's server has not started: {''.join(said)}", file=path)
                time.sleep(0.2)
            yield address
        finally:
            _end(process)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which are a session of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
            return
