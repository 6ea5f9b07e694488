"""What a study shows while it runs: lines without a terminal, a panel in one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from study_in_memory import Study, plan

from study.core.names import BASELINE, COMPLETED, CONFIRM, FAILED, SEARCH, STOPPED_EARLY
from study.ledger.records import EndRecord, ReportRecord, SelectRecord, TrialRecord
from study.reporting.live import Display, Progress, best, duration


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
    running, failed = study.add(SEARCH, NASTY), study.add(SEARCH, "jml")
    study.state.apply(ReportRecord(running, 0, 1, {f"val/iou/{NASTY}": 0.5}))
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
    assert "3 epochs done, at most" in text
    assert [line.split()[0] for line in text.splitlines()[1:5]] == [
        "baseline",
        "reference",
        "search",
        "confirm",
    ]


def test_the_best_leaves_out_confirmations_and_trials_without_a_value() -> None:
    study = Study(plan())
    study.add(SEARCH)
    assert best(study.state, "val/miou") is None
    study.finish(study.add(SEARCH), miou=0.3)
    study.finish(study.add(CONFIRM), miou=0.9)
    found = best(study.state, "val/miou")
    assert found is not None and found.id == "t0001"
