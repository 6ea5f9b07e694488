"""The result of a study in a notebook."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from exported_network import export_network
from ledgers import make_study

from study.analysis.answer import answer
from study.analysis.classes import classes
from study.core.errors import InputError
from study.inference import Predictor
from study.ledger.journal import LEDGER
from study.reporting.table_files import write_tables
from study.session.finished import Finished
from study.storage.studies import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = make_study(tmp_path_factory.mktemp("studies") / "demo", rules=True)
    state = load(folder)
    found = answer(state, folder)
    write_tables(folder, found, classes(state, folder, found))
    shutil.rmtree(folder / "exports", ignore_errors=True)
    (folder / "exports").mkdir()
    export = export_network(folder / "exports")
    return Finished(folder, state, found, (export.path,), 0, "", interrupted=False)


def test_it_is_one_line_as_text_and_the_answer_in_a_notebook(finished: Finished) -> None:
    line = repr(finished)
    page = finished._repr_html_()
    best = finished.answer.config(finished.answer.best_miou)
    assert best is not None and best.label in page
    assert line == f"<study 'demo', finished, 33 trials, best_miou: {best.label}>"
    assert page.count("<table") == 1 and page.count("data:image/png") == 2
    assert "<html" not in page and "<style" not in page


def test_its_tables(finished: Finished) -> None:
    held = finished.table()
    file = finished.folder / "tables" / "confirmed.csv"
    rows = [*csv.DictReader(file.read_text(encoding="utf-8").splitlines())]
    assert [*held.columns] == [*rows[0]]
    assert [*held["config"]] == [row["config"] for row in rows]
    assert [*held["test_miou"]] == [float(row["test_miou"]) for row in rows]
    curves = finished.curves()
    reports = [one for trial in finished.state.trials.values() for one in trial.reports]
    assert len(curves) == len(reports)
    of_one = curves[curves["trial"] == "t0000"]
    assert [*of_one["epoch"]] == [*range(1, len(of_one) + 1)]
    last = finished.state.trials["t0000"].last
    assert of_one["val/miou"].iloc[-1] == last["val/miou"]


def test_its_networks(finished: Finished) -> None:
    assert finished.best == finished.exports[0]
    assert isinstance(finished.load(), Predictor)
    with pytest.raises(InputError, match=r"unknown export 'reference' \(allowed: best_miou\)"):
        finished.load("reference")


def test_an_interrupted_confirmation_shows_what_there_is(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "halfway", rules=True)
    lines = (folder / LEDGER).read_bytes().splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if b'"kind": "end"' in line]
    (folder / LEDGER).write_bytes(b"".join(lines[: ends[-5] + 1]))
    state = load(folder)
    halfway = Finished(folder, state, answer(state, folder), (), 0, "", interrupted=True)
    assert repr(halfway).startswith("<study 'halfway', unfinished, ")
    confirmed = {config.label for config in halfway.answer.configs}
    assert {*halfway.table()["config"]} == confirmed != set()
    assert "<table" in halfway._repr_html_()
    assert {*halfway.curves()["trial"]} == {*state.trials}


def test_before_there_is_an_answer(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "young", until="start")
    state = load(folder)
    young = Finished(folder, state, answer(state, folder), (), 0, "", interrupted=True)
    assert repr(young) == "<study 'young', unfinished, 0 trials>"
    assert young.best is None and young.table().empty and young.curves().empty
    assert "<table>" not in young._repr_html_()
