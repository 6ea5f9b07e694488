"""MLflow's pages show the answer: the ranked trials behind the link, and the study's own run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ledgers import make_study
from tracking_server import free_port

from study import track, tracking
from study.analysis.answer import Answer, answer
from study.analysis.classes import classes
from study.core.errors import InputError
from study.reporting.table_files import summary, write_tables
from study.reporting.tables import points
from study.storage.studies import load
from study.tracking import ui
from study.ui import main

pytestmark = pytest.mark.slow

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
KEY = "test/tuned/miou"


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A finished study in MLflow."""
    folder = make_study(tmp_path_factory.mktemp("studies") / "demo", rules=True)
    state = load(folder)
    found = answer(state, folder)
    write_tables(folder, found, classes(state, folder, found))
    uri = tracking.default_uri(folder.parent)
    assert track.main([str(folder), "--tracking-uri", uri]) == 0
    return folder, found


@pytest.fixture(scope="module")
def page(sent: tuple[Path, Answer]) -> Iterator[str]:
    """The link that `study.ui` prints, while its server runs."""
    folder, _ = sent
    uri = tracking.default_uri(folder.parent)
    command = [sys.executable, "-m", "study.ui", str(folder), "--no-browser"]
    with subprocess.Popen(
        [*command, "--tracking-uri", uri, "--port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("MLflow: http://127.0.0.1:"), process.stderr.read()
        yield line.removeprefix("MLflow: ").strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=240) == 0
    with pytest.raises(OSError):  # the server is gone, too
        urllib.request.urlopen(line.partition("#")[0].removeprefix("MLflow: "), timeout=5)


def run_of(folder: Path) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking.default_uri(folder.parent))
    experiment = client.get_experiment_by_name("synthetic")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.stage = 'study'")
    return parent


def test_the_studys_run_has_the_answers_numbers_and_sentences(sent: tuple[Path, Answer]) -> None:
    folder, found = sent
    run = run_of(folder)
    told = summary(found)
    assert f"best_miou/{KEY}/gain_low" in told["metrics"]
    for key, value in told["metrics"].items():
        assert run.data.metrics[key] == pytest.approx(value)
    note = run.data.tags["mlflow.note.content"]
    best = found.config(found.best_miou)
    assert best is not None and best.label in note
    assert points(best.versus[KEY].difference) in note
    before = run.data.metrics
    assert track.main([str(folder), "--tracking-uri", tracking.default_uri(folder.parent)]) == 0
    assert run_of(folder).data.metrics == before


def text_of(page: str, *, height: int = 1200) -> str:
    """What a browser shows of a page, its scripts run."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--window-size=1800,{height}", "--virtual-time-budget=60000", page),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium here: MLflow's pages are not looked at")
def test_the_link_shows_the_best_trials_and_the_run_its_gain(
    sent: tuple[Path, Answer], page: str
) -> None:
    folder, found = sent
    best = found.config(found.best_miou)
    assert best is not None
    shown = text_of(page)
    assert f"{best.label} seed" in shown, "the trials, by name"
    server, _, rest = page.partition("/#/experiments/")
    run = f"{server}/#/experiments/{rest.partition('/')[0]}/runs/{run_of(folder).info.run_id}"
    shown = text_of(run)
    assert best.label in shown
    assert points(best.versus[KEY].difference) in shown


def test_a_study_that_is_not_in_mlflow_says_how_to_bring_it_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(tmp_path / "other", until="start")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert main([str(folder), "--tracking-uri", uri, "--no-browser"]) == 2
    assert "python -m study.track other" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()
    assert main([str(folder), "--tracking-uri", uri, "--port", "0"]) == 2
    assert "--port: port must be in [1, 65535], got 0" in capsys.readouterr().err


def test_a_server_that_answers_with_errors_is_one_line() -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500)
            self.end_headers()
            self.wfile.write(b"broken")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((ui.HOST, 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{ui.HOST}:{server.server_address[1]}"
        with pytest.raises(InputError, match=f"MLflow at {address} does not answer: ") as caught:
            ui.experiment_of(address, "synthetic", "demo")
        server.shutdown()
    assert "\n" not in str(caught.value)


def test_the_link_is_quoted() -> None:
    found = ui.link("http://127.0.0.1:5000/", "7", "a b", "test/miou")
    assert found == (
        "http://127.0.0.1:5000/#/experiments/7/runs?searchFilter=tags.study%20%3D%20%27a%20b%27"
        "&orderByKey=metrics.%60test%2Fmiou%60&orderByAsc=false&workflowType=machine_learning"
    )


def test_another_port_is_taken_where_one_is_in_use() -> None:
    import socket

    with socket.socket() as busy:
        busy.bind((ui.HOST, 0))
        busy.listen()
        taken = busy.getsockname()[1]
        assert ui.free_port(taken) != taken


def test_a_server_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with (
        pytest.raises(InputError, match=r"MLflow's server has not started: .+") as caught,
        ui.serving(tmp_path / "mlflow.db", free_port()),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["mlflow.db"]
