"""python -m study.status: what a second terminal sees of a study, at any time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ledgers import EPOCHS, make_study

from study.analysis.option_epochs import option_epochs
from study.core.names import SEARCH
from study.ledger.journal import LEDGER, Ledger
from study.ledger.records import (
    EndRecord,
    FaultRecord,
    ReportRecord,
    RungRecord,
    SessionRecord,
    TrialRecord,
    WaitRecord,
)
from study.reporting.study_status import lines, status
from study.scheduler.retries import GPU_MEMORY
from study.status import main
from study.storage.session_lock import is_driven
from study.storage.studies import load


def begin(folder: Path, gpus: float = 0.5) -> Ledger:
    """A study of numbers whose baselines are done, and a session that goes on with it."""
    ledger = Ledger(make_study(folder, until="baselines"))
    ledger.append(
        SessionRecord(1, "two nodes", 4, cpus_per_trial=2.0, gpus_per_trial=gpus, tracking_uri="")
    )
    return ledger


def hand_out(ledger: Ledger, label: str, params: dict[str, Any] | None = None) -> str:
    name = f"t{len(ledger.state.trials):04d}"
    ledger.append(TrialRecord(name, 0, SEARCH, label, "jaccard", params, {}, 0))
    return name


def test_of_a_study_at_work_it_says_what_runs_how_fast_and_for_how_long(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "x")
    try:
        trial = hand_out(ledger, "jaccard 0.5")
        for epoch in (1, 2):
            ledger.append(ReportRecord(trial, 0, epoch, {"val/miou": 0.4, "time/epoch_s": 36.0}))
        state = ledger.state
        now = state.sessions[-1].time + 100.0
        found = status(state, driven=True, now=now)
    finally:
        ledger.close()
    assert found["state"] == "running"
    assert found["cluster"] == "two nodes"
    assert found["sessions"] == 2
    assert found["trials"][SEARCH] == {
        "running": 1,
        "completed": 0,
        "stopped_early": 0,
        "failed": 0,
    }
    (running,) = found["running"]
    assert (running["trial"], running["epoch"], running["of"]) == (trial, 2, EPOCHS)
    assert running["silent_s"] == pytest.approx(100, abs=5)
    since = now - state.sessions[-1].time
    recent = sum(at >= now - since for t in state.trials.values() for at in t.report_times.values())
    assert found["epochs_per_second"] == pytest.approx(recent / since)
    left = found["epochs"]["at_most_left"]
    assert left > 0
    assert found["seconds_left"] == pytest.approx(left / found["epochs_per_second"])
    hours = found["device_hours"]
    assert found["device"] == "GPU"
    seconds = [r["time/epoch_s"] for t in state.trials.values() for r in t.reports.values()]
    assert hours["spent"] == pytest.approx(0.5 * 2 * 36.0 / 3600), "the others had no GPU"
    mean = sum(seconds) / len(seconds)
    assert hours["at_most_left"] == pytest.approx(0.5 * left * mean / 3600)
    text = "\n".join(lines(found))
    assert "running, two nodes, session 2" in text
    assert f"{trial} epoch 2/{EPOCHS}, last heard of 1 min 40 s ago: jaccard 0.5" in text
    assert "GPU-hours of training" in text


def test_without_a_driver_it_says_how_to_go_on_and_gives_no_rate(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "x")
    ledger.append(ReportRecord(hand_out(ledger, "x"), 0, 1, {"val/miou": 0.4}))
    ledger.close()
    assert not is_driven(tmp_path / "x")
    state = load(tmp_path / "x")
    found = status(state, driven=False, now=state.sessions[-1].time + 60)
    assert found["state"] == "not running"
    assert found["epochs_per_second"] is None
    assert "--resume x goes on" in lines(found)[0]
    other = status(state, driven=False, now=2e9, resume="python -m study.run --resume copy")
    assert "--resume copy goes on" in lines(other)[0]


def test_a_failed_trial_stands_there_with_its_reason(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "x")
    trial = hand_out(ledger, "jaccard 0.7")
    ledger.append(EndRecord(trial, "failed", "out of GPU memory: 2 GiB", 0, by_machine=True))
    ledger.close()
    text = lines(status(load(tmp_path / "x"), driven=False, now=2e9))
    assert f"FAILED {trial} after epoch 0: jaccard 0.7: out of GPU memory: 2 GiB" in text


def test_the_share_of_a_gpu_that_a_trial_needed_stands_there(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "x")
    trial = hand_out(ledger, "jaccard 0.7")
    ledger.append(FaultRecord(trial, 0, 0, GPU_MEMORY, "out of GPU memory: 2 GiB"))
    ledger.append(TrialRecord(trial, 0, SEARCH, "x", "x", None, {}, 0, attempt=1, gpus=1.0))
    ledger.close()
    text = lines(status(load(tmp_path / "x"), driven=False, now=2e9))
    assert f"{trial} was given 1 GPU after: out of GPU memory: 2 GiB" in text


def test_the_epochs_of_the_search_are_shown_by_option(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "x"))
    text = lines(status(state, driven=False, now=2e9))
    given = {item.option: item for item in option_epochs(state)}
    line = f"epochs by loss/jaccard: off {given['off'].fraction:.0%}, on {given['on'].fraction:.0%}"
    assert f"{line} (equal: 50%)" in text


def test_a_rung_says_what_the_next_trial_must_reach(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "x", until="search"))
    found = status(state, driven=False, now=2e9)
    ((_, values),) = state.brackets.items()
    (rung,) = found["rungs"]
    assert rung["size"] == len(values)
    for key, bar in rung["to_go_on"].items():
        better = sum(value[key] > bar for _, value in values)
        assert better == (len(values) + 1) // 3 - 1


def test_a_rung_names_a_bar_once_it_judges(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "x")
    for number in range(1, 6):
        (found,) = status(ledger.state, driven=True, now=2e9)["rungs"] or ({"to_go_on": {}},)
        assert found["to_go_on"] == {}
        value = {"val/miou": number / 10, "val/macc": 0.5}
        ledger.append(RungRecord(hand_out(ledger, "x"), 3, "main", value, True, ""))
    (found,) = status(ledger.state, driven=True, now=2e9)["rungs"]
    ledger.close()
    # the sixth value is the first to be judged, and must be among the best two
    assert found["to_go_on"] == {"val/miou": 0.4, "val/macc": 0.5}


def test_the_rungs_of_a_split_ladder_are_told_apart(tmp_path: Path) -> None:
    ledger = begin(tmp_path / "x")
    value = {"val/miou": 0.3, "val/macc": 0.5}
    for bracket in ("loss/recall=off", "loss/recall=ema"):
        ledger.append(RungRecord(hand_out(ledger, "x"), 3, bracket, value, True, ""))
    text = lines(status(ledger.state, driven=True, now=2e9))
    ledger.close()
    for bracket in ("loss/recall=off", "loss/recall=ema"):
        assert f"rung at epoch 3 of {bracket}: 1 values, judges from 6 on" in text


def test_the_command_prints_lines_or_one_json_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "done")
    assert main(["done", "--storage", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("done: ")
    assert "finished" in text
    assert main(["done", "--storage", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert found["epochs"]["at_most_left"] == 0


def test_an_unknown_name_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "done")
    assert main(["gone", "--storage", str(tmp_path)]) == 2
    assert "no study named 'gone'" in capsys.readouterr().err


def test_a_trial_whose_machine_is_gone_is_said_to_wait_until_it_reports_again(
    tmp_path: Path,
) -> None:
    ledger = begin(tmp_path / "x")
    try:
        trial = hand_out(ledger, "jaccard 0.5")
        ledger.append(ReportRecord(trial, 0, 1, {"val/miou": 0.4}))
        for cause in ("preempted", "lost", "preempted"):
            ledger.append(FaultRecord(trial, 0, 1, cause, "gone"))
        ledger.append(TrialRecord(trial, 0, SEARCH, "jaccard 0.5", "jaccard", None, {}, 0, 1))
        ledger.append(WaitRecord(trial, 1))
        now = ledger.state.trials[trial].handed_out + 300.0
        waiting = lines(status(ledger.state, driven=True, now=now))
        ledger.append(ReportRecord(trial, 1, 2, {"val/miou": 0.4}))
        again = lines(status(ledger.state, driven=True, now=now))
    finally:
        ledger.close()
    waits = "waits for a machine that can hold it, last heard of 5 min 00 s ago: jaccard 0.5"
    assert f"{trial} epoch 1/{EPOCHS}, {waits}" in waiting
    assert "trials that the machine ended, and that were tried again: 1 lost, 2 preempted" in again
    assert not any("waits" in line for line in again)


def test_a_watched_study_is_shown_until_it_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(tmp_path / "x", until="search")
    slept: list[float] = []

    def finish(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            make_study(tmp_path / "y")
            (folder / LEDGER).write_bytes((tmp_path / "y" / LEDGER).read_bytes())

    monkeypatch.setattr("time.sleep", finish)
    assert main([str(folder), "--watch"]) == 0
    out = capsys.readouterr().out
    assert len(slept) == 2 and min(slept) >= 1
    assert out.count(" on synthetic, ") == 3 and "\x1b" not in out
    assert main([str(folder), "--watch"]) == 0
    assert len(slept) == 2, "a finished study is shown once"
