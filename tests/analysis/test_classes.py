"""The table of classes: absolute figures, and what finds a class that cross entropy misses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ledgers import CLASS_NAMES, make_study

from study.analysis import evidence
from study.analysis.answer import Answer, answer
from study.analysis.classes import Missed, classes, classes_so_far, never_in_a_window
from study.ledger.state import State
from study.reporting.class_table import class_lines
from study.storage.studies import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("studies") / "demo", rules=True)


@pytest.fixture(scope="module")
def state(folder: Path) -> State:
    return load(folder)


@pytest.fixture(scope="module")
def found(state: State, folder: Path) -> Answer:
    return answer(state, folder)


def with_reference(found: Answer, **metrics: tuple[float, ...]) -> Answer:
    """The answer with other metrics of the reference, by key with "_" for "/"."""
    changed = {key.replace("__", "/"): values for key, values in metrics.items()}
    configs = tuple(
        replace(one, metrics={**one.metrics, **changed}) if one.is_reference else one
        for one in found.configs
    )
    return replace(found, configs=configs)


RARE = CLASS_NAMES[-1]


def missing(found: Answer, tuned: float) -> Answer:
    """The reference's argmax misses the class; its own rule has the IoU `tuned`."""
    return with_reference(
        found,
        **{f"test__recall__{RARE}": (0.0,) * 3, f"test__tuned__iou__{RARE}": (tuned,) * 3},
    )


def test_the_table_has_the_absolute_figures_of_both(
    state: State, folder: Path, found: Answer
) -> None:
    table = classes(state, folder, found)
    assert table.split == "test" and {row.name for row in table.rows} == {*CLASS_NAMES}
    shares = [row.share for row in table.rows]
    assert shares == sorted(shares)
    assert found.reference is not None
    winner = found.config(found.best_miou)
    assert winner is not None
    for row in table.rows:
        assert row.reference is not None and row.winner is not None and row.best is not None
        for figures, of in ((row.reference, found.reference), (row.winner, winner)):
            for metric in ("iou", "recall", "precision"):
                mean = np.mean(of.metrics[f"test/tuned/{metric}/{row.name}"])
                assert getattr(figures, metric) == pytest.approx(mean)
        values = [t.last.get(f"val/tuned/iou/{row.name}", 0.0) for t in state.completed("search")]
        assert row.best[2] >= max(values)


def test_before_a_confirmation_figures_are_of_val(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", rules=True, until="search")
    state = load(folder)
    table = classes(state, folder, answer(state, folder))
    assert table == classes_so_far(state)
    assert table.split == "val" and all(row.winner is not None for row in table.rows)
    empty = make_study(tmp_path / "empty", until="start")
    assert classes_so_far(load(empty)).rows == ()


def test_a_class_that_is_found_has_nothing_to_say(
    state: State, folder: Path, found: Answer
) -> None:
    assert {row.missed for row in classes(state, folder, found).rows} == {""}


def test_a_class_that_the_rule_alone_finds(folder: Path, found: Answer) -> None:
    told = Missed(folder, missing(found, 0.25)).words(RARE, 0.001)
    assert told == ("predicted, never where it is; found by the decision rule alone (IoU 25.0)")
    assert Missed(folder, missing(found, 0.25)).words(RARE, 0.0) == "no training pixel"


def test_a_class_that_another_config_finds_has_its_price(folder: Path, found: Answer) -> None:
    short = missing(found, 0.0)
    told = Missed(folder, short).words(RARE, 0.001)
    others = [one for one in short.configs if not one.is_reference]
    key = f"test/tuned/iou/{RARE}"
    best = max(others, key=lambda one: one.mean(key))
    names = [name for name in CLASS_NAMES if name != RARE]
    assert short.reference is not None
    ours, theirs = (
        np.mean([one.mean(f"test/tuned/iou/{name}") for name in names])
        for one in (best, short.reference)
    )
    assert f"found by {best.label} (IoU {100 * best.mean(key):.1f}" in told
    assert f"the other classes' mean IoU {100 * (ours - theirs):+.1f})" in told


def test_a_class_that_nobody_predicts(folder: Path, found: Answer, tmp_path: Path) -> None:
    (tmp_path / evidence.FOLDER).mkdir()
    short = missing(found, 0.0)
    assert short.reference is not None
    for trial in short.reference.trials:
        held = evidence.read(evidence.path_of(folder, trial))
        assert held is not None
        confusion = held.splits["test"].confusion.copy()
        confusion[:, -1] = 0
        splits = {"test": replace(held.splits["test"], confusion=confusion)}
        evidence.write(evidence.path_of(tmp_path, trial), CLASS_NAMES, splits)
    blind = replace(
        short,
        configs=tuple(
            replace(one, metrics={**one.metrics, f"test/tuned/iou/{RARE}": (0.0,) * 3})
            for one in short.configs
        ),
    )
    told = Missed(tmp_path, blind).words(RARE, 0.001)
    assert told == "never predicted; found by no confirmed config"
    gone = Missed(tmp_path / "nothing", blind).words(RARE, 0.001)
    assert gone == "missed; found by no confirmed config"


def test_a_class_that_was_in_no_window(state: State, folder: Path, found: Answer) -> None:
    short = missing(found, 0.0)
    assert short.reference is not None
    assert never_in_a_window(state, short.reference) == set()
    trials = {}
    for number, name in enumerate(short.reference.trials):
        seen = {f"train/in_batches/{one}": 0.5 for one in CLASS_NAMES}
        seen |= {f"train/in_batches/{RARE}": 0.0}
        once = {f"train/in_batches/{CLASS_NAMES[0]}": float(number == 0)}
        trial = state.trials[name]
        reports: dict[int, Mapping[str, float]] = {
            epoch: {**row, **seen, **once} for epoch, row in trial.reports.items()
        }
        trials[name] = replace(trial, reports=reports)
    state = replace(state, trials={**state.trials, **trials})
    unseen = never_in_a_window(state, short.reference)
    assert unseen == {RARE}
    told = Missed(folder, short, unseen).words(RARE, 0.001)
    assert told.startswith("never in a window that it trained on; found by ")


def test_the_table_as_text(state: State, folder: Path, found: Answer) -> None:
    table = classes(state, folder, missing(found, 0.0))
    _, head, names, *lines = class_lines(table, "tuned cross entropy")
    assert "means over seeds on test" in head and names.startswith("class ")
    assert len(lines) == len(CLASS_NAMES) + 1
    assert lines[-1].startswith(
        f"class {RARE}: tuned cross entropy at its argmax: predicted, never"
    )
    many = replace(table, rows=table.rows * 3)
    assert any("12 more frequent classes" in line for line in class_lines(many, "it"))
    assert class_lines(replace(table, rows=()), "it") == []
