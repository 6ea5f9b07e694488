"""Records and their lines: today's format, and lines as older versions have written them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from study.core.errors import InputError
from study.ledger.journal import LEDGER, Ledger, read, replay
from study.ledger.records import (
    FORMAT,
    EndRecord,
    FinishRecord,
    Record,
    ReportRecord,
    RungRecord,
    SeedsRecord,
    SelectRecord,
    SessionRecord,
    StudyRecord,
    TrialRecord,
    decode,
    encode,
)

TASK = {"data": {"format": "voc", "size": [64, 64], "sbd": True, "val_fraction": 0.3}}
CONFIG = {"task": TASK, "loss": {"pooling": {"p": math.inf}}, "optimizer": {}, "seed": 3}
SESSION = '{"kind": "session", "number": 0, "cluster": "here", "slots": 2, "cpus_per_trial": 1.0, '
SESSION += '"gpus_per_trial": 0, "tracking_uri": "", "keep_checkpoints": false, "time": 1.5}'
# What commit de798f6 wrote, and what it means.
FORMAT_2: list[tuple[str, Record]] = [
    (
        '{"kind": "study", "name": "s", "seed": 3, "task_name": "voc", "task": {"data": {"format": '
        '"voc", "size": [64, 64], "sbd": true, "val_share": 0.3}}, "space_name": "joint", "space": '
        '{}, "plan": {"seed": 3}, "data": {"class_names": ["a"], "class_share": [1.0], "warnings": '
        '[]}, "environment": {}, "format": 2, "time": 1.25}',
        StudyRecord(
            *("s", 3, "voc", TASK, "joint", {}, {"seed": 3}),
            {"class_names": ["a"], "class_fraction": [1.0], "warnings": []},
            {},
            time=1.25,
        ),
    ),
    (SESSION, SessionRecord(0, "here", 2, 1.0, 0.0, "", time=1.5)),
    (
        '{"kind": "trial", "trial": "t0000", "number": 0, "stage": "search", "label": "pooling", '
        '"family": "pooling", "params": {"p": {"$float": "inf"}}, "config": {"task": {"data": '
        '{"format": "voc", "size": [64, 64], "sbd": true, "val_share": 0.3}}, "loss": {"pooling": '
        '{"p": {"$float": "inf"}}}, "optimizer": {}, "seed": 3}, "seed": 3, "attempt": 1, "source":'
        ' null, "resume_from": "checkpoints/t0000/000001.pt", "gpus": 0.5, "time": 2.5}',
        TrialRecord(
            *("t0000", 0, "search", "pooling", "pooling", {"p": math.inf}, CONFIG, 3, 1),
            gpus=0.5,
            time=2.5,
        ),
    ),
    (
        '{"kind": "report", "trial": "t0000", "attempt": 1, "epoch": 2, "metrics": {"lr": 0.1, '
        '"val/miou": "-inf"}, "checkpoint": "checkpoints/t0000/000002.pt", "environment": '
        '{"device": "cpu"}, "time": 3.5}',
        ReportRecord("t0000", 1, 2, {"lr": 0.1, "val/miou": -math.inf}, {"device": "cpu"}, 3.5),
    ),
    (
        '{"kind": "rung", "trial": "t0000", "epoch": 2, "ladder": "main", "values": {"val/miou": '
        '0.5}, "keep": true, "reason": "first", "time": 3.6}',
        RungRecord("t0000", 2, "main", {"val/miou": 0.5}, True, "first", 3.6),
    ),
    (
        '{"kind": "end", "trial": "t0000", "status": "completed", "reason": "full budget", '
        '"epochs": 2, "by_machine": false, "time": 4.5}',
        EndRecord("t0000", "completed", "full budget", 2, time=4.5),
    ),
    (
        '{"kind": "select", "confirmed": ["t0000"], "reference": null, "stated": "t0000", '
        '"searched": 1, "time": 5.5}',
        SelectRecord(["t0000"], None, "t0000", 1, 5.5),
    ),
]


@pytest.mark.parametrize(("line", "record"), FORMAT_2, ids=[item.kind for _, item in FORMAT_2])
def test_a_line_of_format_2_is_read_in_todays_words(line: str, record: Record) -> None:
    assert decode(line) == record
    assert repr(decode(line)) == repr(record), "whole numbers are floats where floats belong"
    assert encode(decode(line)) == encode(record), "keys keep their order"
    assert decode(encode(record)) == record


def test_a_ledger_of_format_2_is_gone_on_with_in_todays_format(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("".join(f"{line}\n" for line, _ in FORMAT_2))
    ledger = Ledger(tmp_path)
    ledger.append(RungRecord("t0000", 3, "main", {"val/miou": 0.6}, True, "second"))
    ledger.close()
    assert [record.kind for record in read(tmp_path / LEDGER)][-2:] == ["select", "rung"]
    state = replay(tmp_path / LEDGER)
    assert list(state.brackets) == [("main", 2), ("main", 3)]
    assert state.study is not None
    assert (state.study.format, state.study.task) == (FORMAT, TASK)
    assert state.trials["t0000"].config == CONFIG


@pytest.mark.parametrize(
    ("kind", "both"),
    [
        ("rung", {"bracket": "main", "ladder": "main"}),
        ("select", {"default_ce": None, "stated": None}),
        ("study", {"format": 2, "data": {"class_share": [], "class_fraction": []}}),
    ],
)
def test_an_old_key_beside_its_new_one_is_refused(kind: str, both: dict[str, object]) -> None:
    line = next(json.loads(line) for line, record in FORMAT_2 if record.kind == kind)
    with pytest.raises(ValueError, match=r"^both `\w+` and its old name `\w+` are given$"):
        decode(json.dumps({**line, **both}))


def test_a_line_keeps_a_text_that_is_no_unicode() -> None:
    """Paths may hold any bytes, and a failed trial's reason may hold a path."""
    end = EndRecord("t0000", "failed", "no such file: caf\udce9.png", 2, by_machine=True)
    assert decode(encode(end)) == end


@pytest.mark.parametrize(
    "record",
    [
        EndRecord("t0000", "complete", "full budget", 2),
        ReportRecord("t0000", 0, True, {"val/miou": 0.5}),
        ReportRecord("t0000", 0, 1, {"val/miou": "0.5"}),  # type: ignore[dict-item]
        FinishRecord(kind="end"),  # type: ignore[arg-type]
    ],
)
def test_a_record_that_is_invalid_is_not_written(tmp_path: Path, record: Record) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(ValueError):
        ledger.append(record)
    ledger.append(FinishRecord())
    ledger.close()
    assert [item.kind for item in read(tmp_path / LEDGER)] == ["finish"]


def test_an_unreadable_line_is_named_with_its_file_and_number(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text(f"{SESSION}\n{SESSION.replace('2', 'two')}\n")
    with pytest.raises(InputError, match=f"{LEDGER}:2: unreadable ledger line: Expecting "):
        replay(tmp_path / LEDGER)


def test_a_trial_of_an_older_line_has_the_plans_budget() -> None:
    record = TrialRecord("t0000", 0, "confirm", "ce", "ce", None, {}, 0, budget=4, ablated="recall")
    line = json.loads(encode(record))
    assert decode(json.dumps(line)) == record
    del line["budget"], line["ablated"]
    older = decode(json.dumps(line))
    assert isinstance(older, TrialRecord)
    assert (older.budget, older.ablated) == (1, "")


@pytest.mark.parametrize("half_width", [None, 1.25])
def test_a_number_of_seeds_is_read_as_it_was_written(half_width: float | None) -> None:
    record = SeedsRecord(5, half_width)
    assert decode(encode(record)) == record
    with pytest.raises(ValueError, match="seeds"):
        decode(encode(SeedsRecord(0)))
