"""What a study shows while it runs: lines without a terminal, a panel in one."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from ledgers import make_study
from rich.console import Console
from study_in_memory import Study, plan
from terminal import Terminal

from study.analysis.answer import answer, leaders
from study.core.names import BASELINE, COMPLETED, CONFIRM, FAILED, SEARCH, STOPPED_EARLY
from study.ledger.plan import Plan
from study.ledger.records import EndRecord, ReportRecord, SelectRecord, TrialRecord
from study.reporting import live
from study.reporting.live import Display, Progress, best, best_rule, duration, rare_line
from study.storage.studies import load


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_epochs_left_count_every_trial_to_come_and_fall_with_the_selection() -> None:
    study = Study(plan())
    progress = Progress(study.plan, study.state)
    assert progress.left[0] == (2 + 16 + 15) * 4
    ce = study.add(BASELINE, "ce")
    assert progress.left[0] == (2 + 16 + 15) * 4
    study.state.apply(ReportRecord(ce, 0, 1, {"val/miou": 0.3}))
    assert progress.left[0] == (2 + 16 + 15) * 4 - 1
    study.state.apply(EndRecord(ce, STOPPED_EARLY, "", 1))
    assert progress.left[0] == (1 + 16 + 15) * 4
    study.state.apply(SelectRecord(["t0004"], ce, ce))
    assert progress.left[0] == (1 + 2 * 3) * 4


def test_confirmations_of_an_earlier_choice_are_not_taken_off_what_is_left() -> None:
    study = Study(plan())
    progress = Progress(study.plan, study.state)
    ce, recall = study.add(BASELINE, "ce"), study.add(BASELINE, "recall")
    for name in (ce, recall):
        study.state.apply(EndRecord(name, COMPLETED, "", 4))
    study.state.apply(SelectRecord([recall], ce, ce))
    for source in (ce, recall):
        for seed in (1, 2, 3):
            name = study.add(CONFIRM, "x", source=source, seed=seed)
            study.state.apply(EndRecord(name, COMPLETED, "", 4))
    assert progress.left[0] == 0
    better = study.add(SEARCH, "jml")
    study.state.apply(EndRecord(better, COMPLETED, "", 4))
    assert progress.left[0] == (15 + 15 - 3) * 4, "default cross entropy keeps its seeds"
    study.state.apply(SelectRecord([better], ce, ce))
    assert progress.left[0] == 3 * 4


def test_time_left_is_at_the_rate_since_the_first_epoch() -> None:
    """The first one comes with all that starts up before it."""
    now = 100.0
    study = Study(plan())
    progress = Progress(study.plan, study.state, clock=lambda: now)
    ce = study.add(BASELINE, "ce")
    assert progress.seconds_left is None
    for epoch, now in ((1, 130.0), (2, 132.0), (3, 134.0)):  # noqa: B007
        study.state.apply(ReportRecord(ce, 0, epoch, {"val/miou": 0.3}))
        expected = None if epoch == 1 else 2.0 * progress.left[0]
        assert progress.seconds_left == expected


def test_without_a_terminal_every_end_is_a_line() -> None:
    study = Study(plan())
    out = io.StringIO()
    with Display(study.plan, study.state, out) as display:
        for status, reason in ((FAILED, "out of memory"), ("completed", ""), (STOPPED_EARLY, "r")):
            name = study.add(SEARCH, "jml")
            study.state.apply(ReportRecord(name, 0, 4, {"val/miou": 0.4321, "val/macc": 0.5}))
            end = EndRecord(name, status, reason, 4)
            study.state.apply(end)
            display.on(end)
        display.on(SelectRecord(["t0001"], "t0000", None))
    lines = out.getvalue().splitlines()
    assert lines == [
        "t0000 search: jml | FAILED at epoch 4 (out of memory) | val/miou 43.2, val/macc 50.0",
        "t0001 search: jml | completed at epoch 4 | val/miou 43.2, val/macc 50.0",
        "t0002 search: jml | stopped at epoch 4 (r) | val/miou 43.2, val/macc 50.0",
        "search over; confirming with fresh seeds: t0000, t0001",
    ]


NASTY = "[bold]:smile: \x1b[31mred\rback\x07 \u202egnol"
WRITTEN = "[bold]:smile: \\x1b[31mred\\rback\\x07 \\u202egnol"


def test_text_from_outside_is_written_out() -> None:
    study = Study(plan(objectives=(f"val/iou/{NASTY}",)))
    found, failed = study.add(SEARCH, NASTY), study.add(SEARCH, "jml")
    study.add(SEARCH, NASTY)
    study.state.apply(ReportRecord(found, 0, 4, {f"val/iou/{NASTY}": 0.5}))
    study.state.apply(EndRecord(found, COMPLETED, "", 4))
    out = io.StringIO()
    display = Display(study.plan, study.state, out)
    end = EndRecord(failed, FAILED, NASTY, 1)
    study.state.apply(end)
    display.on(end)
    assert f"({WRITTEN})" in out.getvalue()
    console = Console(file=io.StringIO(), width=200)
    console.print(display.panel())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"best val/iou/{WRITTEN}  50.0" in text and text.count(WRITTEN) == 3


def test_a_resumed_trial_says_from_where_it_goes_on() -> None:
    study = Study(plan())
    name = study.add(SEARCH, "jml")
    study.state.apply(ReportRecord(name, 0, 3, {"val/miou": 0.4}))
    out = io.StringIO()
    display = Display(study.plan, study.state, out)
    display.on(TrialRecord(name, 0, SEARCH, "jml", "jaccard", None, {}, 0, attempt=1))
    assert out.getvalue() == "t0000 goes on after epoch 3: jml\n"


def test_the_panel_shows_states_running_trials_the_best_and_what_is_left() -> None:
    study = Study(plan())
    study.finish(study.add(BASELINE, "ce"), miou=0.41)
    study.finish(study.add(SEARCH, "jml"), miou=0.46)
    running = study.add(CONFIRM, "lmp")
    study.state.apply(ReportRecord(running, 0, 1, {"val/miou": 0.99}))
    console = Console(file=io.StringIO(), width=100)
    console.print(Display(study.plan, study.state, io.StringIO()).panel())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "epoch 1/4" in text and "lmp" in text
    assert "best val/miou  46.0  t0001  jml" in text
    assert "of one seed, at full budget" in text
    assert "3 epochs done, at most" in text and "this session: 0 s so far" in " ".join(text.split())
    assert [line.split()[0] for line in text.splitlines()[1:5]] == [
        "baseline",
        "reference",
        "search",
        "confirm",
    ]


def best_of(study: Study, key: str) -> str | None:
    found = best(study.state, leaders(study.state), key)
    return None if found is None else found.trial


def test_the_best_has_reached_the_full_budget_and_is_of_the_search() -> None:
    study = Study(plan())
    ahead = study.add(SEARCH)
    study.state.apply(ReportRecord(ahead, 0, 1, {"val/miou": 0.8, "val/iou/a": 0.8}))
    assert best_of(study, "val/miou") is best_of(study, "val/iou/a") is None
    assert "nobody yet" in best_rule(leaders(study.state))
    study.finish(study.add(SEARCH), miou=0.3)
    study.finish(study.add(CONFIRM), miou=0.9)
    assert best_of(study, "val/miou") == "t0001"


def test_the_best_by_accuracy_keeps_the_reference_s_miou() -> None:
    study = Study(plan())
    for label, miou, macc in (("ce", 0.400, 0.5), ("a", 0.396, 0.6), ("b", 0.394, 0.7)):
        name = study.add(BASELINE, label)
        study.state.apply(ReportRecord(name, 0, 4, {"val/miou": miou, "val/macc": macc}))
        study.state.apply(EndRecord(name, COMPLETED, "", 4))
    assert best_of(study, "val/macc") == "t0001", "the third is more than half a point below"


@pytest.mark.parametrize("until", ["start", "baselines", "search", "select", "finish"])
def test_the_best_so_far_is_what_the_answer_calls_best(tmp_path: Path, until: str) -> None:
    folder = make_study(tmp_path / "demo", until=until, rules=True)
    state = load(folder)
    found, ahead = answer(state, folder), leaders(state)
    assert state.study is not None
    named = [best(state, ahead, key) for key in Plan.from_dict(state.study.plan).objectives]
    assert [one and one.trial for one in named] == [found.best_miou, found.best_macc]
    assert ahead.confirmed == found.confirmed
    if found.confirmed:
        winner = found.config(found.best_miou)
        assert winner is not None and named[0] is not None
        assert named[0].value == winner.mean(found.primary.val_miou)
        assert "mean over fresh seeds" in best_rule(ahead)
    assert bool(rare_line(state, ahead)) == (until != "start")


def test_the_rarest_classes_are_those_of_train_before_and_after(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "demo", rules=True)
    state = load(folder)
    found = answer(state, folder)
    winner = found.config(found.best_miou)
    assert winner is not None and found.reference is not None
    line = rare_line(state, leaders(state))
    told = line.rpartition(": ")[2].split(", ")
    assert [one.split()[0] for one in told] == ["sign", "pole", "person"]
    key = "val/tuned/iou/sign"
    old, new = (100 * one.mean(key) for one in (found.reference, winner))
    assert told[0] == f"sign {old:.1f} -> {new:.1f}"


def test_a_terminal_that_is_resized_shows_one_panel_and_every_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(140)

    def size(*_: int) -> os.terminal_size:
        return os.terminal_size((terminal.width, 60))

    monkeypatch.setattr("os.get_terminal_size", size)
    monkeypatch.setattr(live, "REFRESH_PER_SECOND", 1e-3)  # it is drawn with every line alone
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    study = Study(plan())
    study.finish(study.add(BASELINE, "ce"), miou=0.41)
    study.add(SEARCH, "inverse frequency^0.23 + max-pooling(p 2.9, ratio 0.39) + jaccard 0.92")
    said = []
    with Display(study.plan, study.state, terminal) as display:
        for width in (140, 60, 100, 45, 140):
            terminal.resize(width)
            said.append(f"line of {width}")
            display.say(said[-1])
            rows = terminal.rows
            assert rows[: len(said)] == said
            assert rows[len(said)].startswith("stage")
            assert sum(row.startswith("stage") for row in rows) == 1
        terminal.resize(50)
    assert terminal.rows == said
