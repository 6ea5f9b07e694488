from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ledgers import CLASS_NAMES, FREQUENCIES, PLAN, TASK, make_study
from tiny_task import CONVOLUTION, STATEFUL_LOSS, tiny

from study import export as export_command
from study import train as train_command
from study.analysis.answer import answer
from study.config.task import TrialConfig
from study.core.files import write_text
from study.core.names import BASELINE, COMPLETED, CONFIRM
from study.data import open_data
from study.ledger.journal import Ledger
from study.ledger.records import (
    EndRecord,
    FinishRecord,
    ReportRecord,
    SelectRecord,
    StudyRecord,
    TrialRecord,
)
from study.ledger.state import State
from study.losses.config import LossConfig, WeightsTeacher
from study.metrics.decision import log_prior
from study.reporting.exports import export, export_text, write_exports
from study.storage.studies import load
from study.storage.weights import WeightsStore
from study.training.config_file import read_config
from study.training.environment import environment
from study.training.trainer import train


def read(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_study(tmp_path / "studies" / "demo")


@pytest.mark.slow
def test_a_study_exports_its_best_and_its_pareto_set(folder: Path) -> None:
    state = load(folder)
    found = answer(state, folder)
    paths = write_exports(folder, state, found, WeightsStore(folder))
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        "exports/best_miou.yaml",
        "exports/best_macc.yaml",
        "exports/reference.yaml",
        *(f"exports/pareto/{trial}.yaml" for trial in found.pareto),
    ]
    assert sorted(paths) == sorted((folder / "exports").rglob("*.yaml"))


@pytest.mark.slow
def test_a_confirmed_export_is_one_of_its_seeds_and_sums_up_all(folder: Path) -> None:
    state = load(folder)
    found = answer(state, folder)
    write_exports(folder, state, found, WeightsStore(folder))
    tree = read(folder / "exports" / "best_miou.yaml")
    origin = tree["provenance"]
    trial, best = state.trials[origin["trial"]], found.config(found.best_miou)
    assert best is not None
    assert trial.stage == CONFIRM and trial.source == origin["source"] == found.best_miou
    assert tree["seed"] == origin["seed"] == trial.seed
    assert trial.last["val/miou"] == np.median(best.metrics["val/miou"])
    assert "decision" not in tree, "no rules were measured"
    assert origin["metrics"] == trial.last
    assert origin["epochs"] == trial.epochs == PLAN.epochs
    assert origin["environment"]["num_threads"] == 1
    assert origin["data"]["fingerprint"] == state.study.data["fingerprint"]  # type: ignore[union-attr]
    confirmed = origin["confirmed"]["test/miou"]
    assert confirmed["values"] == list(best.metrics["test/miou"])
    assert confirmed["mean"] == best.mean("test/miou")
    assert confirmed["sd"] == best.sd("test/miou")
    against = best.versus["test/miou"]
    assert against.interval is not None
    assert confirmed["versus_tuned_cross_entropy"]["p"] == against.p
    assert confirmed["versus_tuned_cross_entropy"]["confidence"] == 0.975
    assert confirmed["versus_tuned_cross_entropy"]["interval"] == [
        against.interval.low,
        against.interval.high,
    ]


def with_rules(state: State, tuned: list[float], tuned_macc: list[float]) -> None:
    """Add to each confirmation trial what the decision rules measure, by the number of its seed."""
    for trial in state.of_stage(CONFIRM):
        number = trial.seed - 1000
        trial.reports[trial.epochs] = {
            **trial.last,
            "val/tuned/miou": tuned[number],
            "val/tuned_macc/macc": tuned_macc[number],
            "val/tau_miou": 0.1 * number,
            "val/tau_macc": 1.0 + 0.1 * number,
        }


@pytest.mark.parametrize(
    ("num_seeds", "tuned", "tuned_macc", "seeds"),
    [
        (3, [0.5, 0.3, 0.4], [0.6, 0.7, 0.5], (1002, 1000)),
        (2, [0.5, 0.3], [0.6, 0.7], (1001, 1000)),
        (3, [math.nan, 0.3, 0.4], [0.6, math.nan, math.nan], (1001, 1002)),
    ],
)
def test_an_export_carries_the_rule_and_the_numbers_of_its_median_seed(
    tmp_path: Path,
    num_seeds: int,
    tuned: list[float],
    tuned_macc: list[float],
    seeds: tuple[int, int],
) -> None:
    folder = make_study(tmp_path / "demo", num_seeds=num_seeds, with_evidence=False)
    state = load(folder)
    with_rules(state, tuned, tuned_macc)
    write_exports(folder, state, answer(state, folder), WeightsStore(folder))
    by_miou, by_macc, reference = (
        read(folder / "exports" / name)
        for name in ("best_miou.yaml", "best_macc.yaml", "reference.yaml")
    )
    assert (by_miou["seed"], by_macc["seed"]) == seeds
    for tree, key in ((by_miou, "tau_miou"), (by_macc, "tau_macc"), (reference, "tau_miou")):
        origin = tree["provenance"]
        assert origin["seed"] == tree["seed"]
        assert origin["metrics"] == pytest.approx(
            dict(state.trials[origin["trial"]].last), abs=0, nan_ok=True
        )
        assert tree["decision"]["tau"] == origin["metrics"][f"val/{key}"]
        assert tree["decision"]["log_prior"] == np.log(FREQUENCIES / FREQUENCIES.sum()).tolist()
    assert reference["loss"] == TrialConfig.model_validate({"task": TASK}).loss.model_dump()
    text = (folder / "exports" / "best_macc.yaml").read_text(encoding="utf-8")
    assert f"of seed {seeds[1]}, the median by val/tuned_macc/macc." in text


def test_weights_come_with_the_exports_that_state_their_trial(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", with_evidence=False)
    state = load(folder)
    with_rules(state, [0.5, 0.3, 0.4], [0.6, 0.7, 0.5])
    store = WeightsStore(folder)
    for trial in state.of_stage(CONFIRM):
        store.keep(trial.id, lambda path, name=trial.id: write_text(path, name))  # type: ignore[misc]
    state.finished = False
    write_exports(folder, state, answer(state, folder), store)
    assert len(list((folder / "weights").iterdir())) == len(state.of_stage(CONFIRM))
    state.finished = True
    for _ in range(2):  # a finished study that is resumed exports again
        write_exports(folder, state, answer(state, folder), store)
    stated = set()
    for path in (folder / "exports").rglob("*.yaml"):
        tree, text = read(path), path.read_text(encoding="utf-8")
        weights = path.with_suffix(".safetensors")
        if tree["provenance"]["stage"] != CONFIRM:
            assert "weights" not in tree and not weights.exists()
            assert "# Only confirmed trials keep weights. To make them: " in text
            continue
        content = weights.read_bytes()
        assert content.decode() == tree["provenance"]["trial"]
        digest = hashlib.sha256(content).hexdigest()
        assert tree["weights"] == {"file": weights.name, "sha256": digest}
        stated.add(content.decode())
    assert len(stated) >= 3
    assert {path.stem for path in (folder / "weights").iterdir()} == stated

    store.keep_only([])
    write_exports(folder, state, answer(state, folder), store)
    best = folder / "exports" / "best_miou.yaml"
    assert "weights" not in read(best)
    assert "# None of its weights are kept. To make them: " in best.read_text(encoding="utf-8")
    assert list(folder.rglob("*.safetensors")) == []


def test_the_rule_uses_the_counted_pixels_where_the_ledger_has_them(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", with_evidence=False)
    state = load(folder)
    with_rules(state, [0.5, 0.3, 0.4], [0.6, 0.7, 0.5])
    assert state.study is not None
    counts = [3 * 10**9, 7, 0, 11, 13, 17, 19, 23]
    state.study.data["class_counts"] = counts
    found = answer(state, folder)
    assert found.best_miou is not None
    tree = export(state, found, found.best_miou)
    assert tree["decision"]["log_prior"] == log_prior(counts).tolist()


@pytest.mark.slow
def test_an_infinite_p_norm_is_exported_so_that_it_loads_again(folder: Path) -> None:
    state = load(folder)
    found = answer(state, folder)
    lmp = next(trial.id for trial in state.trials.values() if trial.label == "lmp")
    text = export_text("Largest p", export(state, found, lmp))
    tree = yaml.safe_load(text)
    assert tree["loss"]["pooling"]["p"] == math.inf
    tree.pop("provenance")
    assert TrialConfig.model_validate(tree) == TrialConfig.model_validate(state.trials[lmp].config)


def test_a_running_study_exports_the_best_so_far_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "demo", until="search")
    assert export_command.main(["demo", "--storage", str(tmp_path)]) == 0
    assert "nothing is confirmed yet" in capsys.readouterr().out
    path = tmp_path / "demo" / "exports" / "best_miou.yaml"
    assert "# Not confirmed: one seed, judged on val alone." in path.read_text()
    tree = read(path)
    assert tree["provenance"]["confirmed"] is None
    assert not any(key.startswith("test/") for key in tree["provenance"]["metrics"])


@pytest.mark.slow
def test_exports_that_no_longer_hold_are_removed(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo")
    stale = folder / "exports" / "pareto" / "t9999.yaml"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    kept = [folder / "exports" / name for name in ("notes.txt", "mine.yaml", "pareto/tests.yaml")]
    for path in kept:
        path.write_text("mine")
    state = load(folder)
    write_exports(folder, state, answer(state, folder), WeightsStore(folder))
    assert not stale.exists()
    assert [path.read_text() for path in kept] == ["mine"] * 3


@pytest.mark.slow
@pytest.mark.parametrize(("root", "flag"), [("/data", " --data-root DIR"), (None, "")])
def test_the_head_of_an_export_says_that_it_needs_a_data_root(
    folder: Path, root: str | None, flag: str
) -> None:
    state = load(folder)
    tree = export(state, answer(state, folder), "t0000")
    tree["task"]["data"] = {"format": "cityscapes", "root": root}
    assert f"study.train THIS_FILE{flag}\n" in export_text("Best", tree)


@pytest.mark.slow
def test_an_export_counts_the_seeds_that_failed(folder: Path) -> None:
    state = load(folder)
    found = answer(state, folder)
    best = found.config(found.best_miou)
    assert best is not None
    others = tuple(config for config in found.configs if config is not best)
    failing = replace(found, configs=(replace(best, failed=(7,)), *others), tuned=False)
    tree = export(state, failing, best.source)
    assert tree["provenance"]["confirmed"]["failed_seeds"] == [7]
    assert "versus_default_cross_entropy" in (tree["provenance"]["confirmed"]["test/miou"])
    assert "Confirmed with 3 fresh seeds (1 more failed), judged" in export_text("Best", tree)


def test_a_study_without_results_exports_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(tmp_path / "demo", until="start")
    assert export_command.main(["demo", "--storage", str(tmp_path)]) == 2
    assert "no trial has reached the full budget yet" in capsys.readouterr().err
    assert not (folder / "exports").exists()


def test_an_unknown_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path / "demo", until="start")
    assert export_command.main(["other", "--storage", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "'other'" in error and "demo" in error and error.count("\n") == 1


@pytest.mark.slow
def test_an_export_of_a_real_training_runs_again_to_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    folder = tmp_path / "real"
    ledger = Ledger(folder)
    data = open_data(tiny().trained_here.data)
    plan = {"objectives": ["val/miou", "val/macc"], "confirm_top": 1, "confirm_seeds": 1}
    counts = data.train.class_counts.sum(axis=0).tolist()
    facts = {
        "fingerprint": data.fingerprint,
        "class_names": list(CLASS_NAMES),
        "class_counts": counts,
    }
    ledger.append(StudyRecord("real", 0, "tiny", {}, "joint", {}, plan, facts, {}))
    for number, (stage, source) in enumerate([(BASELINE, None), (CONFIRM, "t0000")]):
        config = tiny(STATEFUL_LOSS, seed=number, model=CONVOLUTION)
        trial = f"t{number:04d}"
        ledger.append(
            TrialRecord(
                trial, number, stage, "all", "all", None, config.model_dump(), number, source=source
            )
        )
        where = environment(config, "cpu")
        for report in train(config, data=data, device="cpu", evaluate_test=stage == CONFIRM):
            metrics = dict(report.metrics)
            ledger.append(ReportRecord(trial, 0, report.epoch, metrics, environment=where))
        ledger.append(EndRecord(trial, COMPLETED, "full budget", 2))
        if stage == BASELINE:
            ledger.append(SelectRecord(["t0000"], None, None))
    ledger.append(FinishRecord())
    ledger.close()

    assert export_command.main([str(folder)]) == 0
    path = folder / "exports" / "best_miou.yaml"
    tree = read(path)
    assert tree["provenance"]["trial"] == "t0001"
    assert tree["decision"]["log_prior"] == log_prior(counts).tolist()
    assert train_command.main([str(path), "--device", "cpu", "--trust"]) == 0
    out = capsys.readouterr().out
    assert "reproduced exactly" in out and "test/miou" in out and "test/tuned/miou" in out


def taught(folder: Path, weights: Path, content: bytes) -> State:
    """A study whose trials all learn from a teacher."""
    state = load(folder)
    sha256 = hashlib.sha256(content).hexdigest()
    teacher = {"weights": str(weights), "sha256": sha256, "model": {"factory": "net:big"}}
    for trial in state.trials.values():
        trial.config = {**trial.config, "loss": {"distillation": {"mix": 0.5, "teacher": teacher}}}
    return state


@pytest.mark.parametrize("place", ["of an export", "of the study", "of the study, moved"])
def test_exports_come_with_the_weights_of_their_teacher(folder: Path, place: str) -> None:
    own = folder / "weights" / "t0000.safetensors"
    weights = folder.parent / "large.safetensors" if place == "of an export" else own
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"teacher")
    named = Path("/elsewhere/weights/t0000.safetensors") if place.endswith("moved") else weights
    state = taught(folder, named, b"teacher")
    exports = folder / "exports"
    old = exports / "teacher-0123456789ab.safetensors"
    write_text(old, "of an earlier state")
    paths = write_exports(folder, state, answer(state, folder), WeightsStore(folder))
    (file,) = exports.glob("teacher-*")
    assert file.read_bytes() == b"teacher"
    weights.unlink(missing_ok=True)  # a finished study keeps none that its exports do not state
    moved = exports.rename(folder.parent / "mailed")
    for path in (moved / path.relative_to(exports) for path in paths):
        loss = read_config(path, trust=True).config.loss
        assert isinstance(loss, LossConfig) and isinstance(loss.teacher, WeightsTeacher)
        assert loss.teacher.weights == str(moved / file.name)
        assert f"Weights of its teacher, to keep beside this file: {file.name}" in path.read_text()
        assert "/elsewhere" not in path.read_text()
    (pareto, *_) = (moved / "pareto").glob("*.yaml")
    flat = folder.parent / "flat"
    flat.mkdir()
    for one in (pareto, moved / file.name):
        one.rename(flat / one.name)
    loss = read_config(flat / pareto.name, trust=True).config.loss
    assert isinstance(loss, LossConfig) and isinstance(loss.teacher, WeightsTeacher)
    assert loss.teacher.weights == str(flat / file.name)


@pytest.mark.parametrize("content", [None, b"another"])
def test_an_export_whose_teacher_is_gone_says_where_it_was(
    folder: Path, content: bytes | None
) -> None:
    weights = folder.parent / "large.safetensors"
    if content is not None:
        weights.write_bytes(content)
    state = taught(folder, weights, b"teacher")
    write_exports(folder, state, answer(state, folder), WeightsStore(folder))
    assert not [*(folder / "exports").glob("teacher-*")]
    tree = read(folder / "exports" / "best_miou.yaml")
    assert tree["loss"]["distillation"]["teacher"]["weights"] == str(weights)
