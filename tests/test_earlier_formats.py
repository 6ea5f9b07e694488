"""Ledgers, checkpoints and exports of commit de798f6 keep loading, resuming and reproducing."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from earlier import CLOSE, FOLDER, copied, facts, is_like, recorded
from tiny_task import run, timeless

import study.export
import study.report
import study.status
import study.train
from study.config.task import TrialConfig
from study.data import open_data
from study.session.prepare import Options, reopen
from study.storage.studies import load

LEDGERS = ("finished", "interrupted", "odd", "voc", "deepglobe")
EXPORTS = sorted((FOLDER / "finished" / "exports").rglob("*.yaml"))
TRAINED = FOLDER / "trained"


@pytest.mark.parametrize("name", LEDGERS)
def test_a_ledger_says_what_it_said(name: str) -> None:
    assert facts(load(FOLDER / name)) == recorded(name)


def test_infinities_and_nan_are_numbers_again() -> None:
    state = load(FOLDER / "odd")
    assert state.study is not None
    assert state.study.space["loss"]["pooling"]["p"] == math.inf
    trial = state.trials["t0001"]
    assert trial.config["loss"]["pooling"]["p"] == math.inf
    assert TrialConfig.model_validate(trial.config).loss.model_dump()["pooling"]["p"] == math.inf
    assert math.isnan(trial.last["val/miou"])
    assert (trial.last["train/recall"], trial.last["train/pixel"]) == (math.inf, -math.inf)
    assert trial.rungs[1] == {"val/miou": -math.inf, "val/macc": -math.inf}


@pytest.mark.parametrize(("name", "fraction"), [("voc", 0.2), ("deepglobe", 0.15)])
def test_a_study_on_data_that_are_elsewhere_opens(name: str, fraction: float) -> None:
    prepared = reopen(name, Options(storage=FOLDER))
    data = prepared.task.trained_here.data.model_dump()
    assert (data["format"], data["root"]) == (name, f"data/{name}")
    assert fraction in data.values()
    assert prepared.plan.num_trials == 16


@pytest.mark.parametrize("name", ["finished", "interrupted", "odd"])
def test_the_status_of_a_study(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copied(name, tmp_path)
    assert study.status.main([name, "--storage", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = recorded(name)
    assert found["state"] == ("finished" if expected["finished"] else "not running")
    assert found["epochs"]["done"] == expected["num_epochs"]
    assert [item["trial"] for item in found["running"]] == expected["unfinished"]
    assert [item["trial"] for item in found["failed"]] == [
        trial["id"] for trial in expected["trials"] if trial["status"] == "failed"
    ]
    assert len(found["rungs"]) == len(expected["brackets"])
    assert study.status.main([name, "--storage", str(tmp_path)]) == 0
    assert expected["trials"][-1]["id"] in capsys.readouterr().out or expected["finished"]


def test_the_exports_of_a_study_are_the_earlier_ones(tmp_path: Path) -> None:
    folder = copied("finished", tmp_path)
    earlier = {path.relative_to(FOLDER / "finished"): _yaml(path) for path in EXPORTS}
    for path in earlier:
        (folder / path).unlink()
    assert study.export.main(["finished", "--storage", str(tmp_path)]) == 0
    found = {path.relative_to(folder): _yaml(path) for path in folder.rglob("exports/**/*.yaml")}
    assert found.keys() - earlier.keys() == {Path("exports/reference.yaml")}
    for path, tree in earlier.items():
        assert _content(found[path]) == _content(tree)


def _yaml(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def _content(tree: dict[str, Any]) -> dict[str, Any]:
    """An export without what is words alone."""
    origin = tree["provenance"]
    kept = ("study", "trial", "source", "stage", "seed", "epochs", "metrics", "environment", "data")
    words = ("stated_by_median_of",)
    confirmed = {
        key: {name: number for name, number in item.items() if name in ("values", "mean", "sd")}
        if isinstance(item, dict)
        else item
        for key, item in origin["confirmed"].items()
        if key not in words
    }
    differences = [
        number["difference"]
        for item in origin["confirmed"].values()
        if isinstance(item, dict)
        for number in item.values()
        if isinstance(number, dict)
    ]
    return {
        "config": _config(tree),
        "differences": differences,
        "confirmed": confirmed,
        **{key: origin[key] for key in kept},
    }


def _config(tree: dict[str, Any]) -> TrialConfig:
    return TrialConfig.model_validate({k: v for k, v in tree.items() if k != "provenance"})


@pytest.mark.slow
def test_the_report_of_a_study(tmp_path: Path) -> None:
    folder = copied("finished", tmp_path)
    assert study.report.main(["finished", "--storage", str(tmp_path)]) == 0
    state = load(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert state.selection is not None
    for name in state.selection.confirmed:
        assert name in page
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(state.trials)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("file", ["epoch-2.pt", "checkpoint.pt"])
def test_a_training_goes_on_from_its_checkpoint(file: str) -> None:
    tree = _yaml(TRAINED / "config.yaml")
    config = _config(tree)
    lines = (TRAINED / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    whole = {(report := json.loads(line)).pop("epoch"): report for line in lines}
    found = run(config, open_data(config.trained_here.data), resume_from=TRAINED / file)
    assert [report.epoch for report in found] == ([3, 4] if file == "epoch-2.pt" else [])
    for report in found:
        expected = {k: v for k, v in whole[report.epoch].items() if not k.startswith("time/")}
        got = {key: value for key, value in timeless(report).items() if key in expected}
        if is_like(tree["provenance"]["environment"]):
            assert got == expected
        else:
            assert got["train/loss"] == pytest.approx(expected["train/loss"], rel=CLOSE)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "path",
    [FOLDER / "exported" / "tiny.yaml", FOLDER / "finished/exports/best_miou.yaml"],
    ids=["shipped task", "factory"],
)
def test_an_export_reproduces(path: Path, capsys: pytest.CaptureFixture) -> None:
    assert study.train.main([str(path), "--device", "cpu", "--trust"]) == 0
    out = capsys.readouterr().out
    if is_like(_yaml(path)["provenance"]["environment"]):
        assert "reproduced exactly: val/miou 0." in out
