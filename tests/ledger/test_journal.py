"""The ledger: what is written is read, torn lines go, the fold keeps the first of each epoch."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from study.core.errors import InputError, OutputError
from study.ledger.journal import (
    LEDGER,
    Ledger,
    read,
    replay,
)
from study.ledger.records import (
    EndRecord,
    FinishRecord,
    Record,
    ReportRecord,
    RungRecord,
    SelectRecord,
    StudyRecord,
    TrialRecord,
    _plain,
    decode,
    encode,
)
from study.ledger.state import fold
from study.storage.session_lock import SessionLock
from study.storage.studies import Storage, find, load, new_folder


def trial(name: str = "t0000", **changes: object) -> TrialRecord:
    fields: dict[str, object] = {
        "trial": name,
        "number": 0,
        "stage": "search",
        "label": "recall",
        "family": "recall",
        "params": {"loss/pooling/p": math.inf},
        "config": {"loss": {"pooling": {"kind": "max", "p": math.inf}}},
        "seed": 0,
    }
    return TrialRecord(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_record_survives_the_line_with_infinities_and_nan() -> None:
    record = trial()
    assert decode(encode(record)) == record
    report = decode(encode(ReportRecord("t0000", 0, 1, {"a": math.nan, "b": math.inf, "c": 0.1})))
    assert isinstance(report, ReportRecord)
    assert math.isnan(report.metrics["a"])
    assert report.metrics["b"] == math.inf
    assert report.metrics["c"] == 0.1
    assert "NaN" not in encode(report)


def test_a_line_is_the_same_with_and_without_numbers_that_are_not_finite() -> None:
    for value in (0.1, math.inf, -math.inf, math.nan, 3):
        report = ReportRecord("t0000", 0, 1, {"a": value, "b": 1e-7}, {"n": [1, 2]}, 5.5)
        plain = {**vars(report), "metrics": _plain(report.metrics, numbers=True)}
        assert encode(report) == json.dumps(plain, allow_nan=False)
        fields = [item.name for item in dataclasses.fields(report)]
        assert list(json.loads(encode(report))) == fields


def test_decisions_are_on_the_disk_before_anything_acts_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict that ends its trial waits for the end's line, so that both take one sync."""
    synced = [0]
    ledger = Ledger(tmp_path, sync_seconds=60.0)

    def fsync(file: int) -> None:
        synced.append(len((tmp_path / LEDGER).read_bytes().splitlines()))

    monkeypatch.setattr("os.fsync", fsync)
    lines: list[tuple[Record, int]] = [
        (trial(), 1),
        (ReportRecord("t0000", 0, 1, {"a": 0.5}), 1),
        (RungRecord("t0000", 1, "main", {"a": 0.5}, True, "goes on"), 3),
        (ReportRecord("t0000", 0, 2, {"a": 0.5}), 3),
        (RungRecord("t0000", 2, "main", {"a": 0.5}, False, "does not"), 3),
        (EndRecord("t0000", "stopped_early", "rung 2", 2), 6),
        (FinishRecord(), 7),
    ]
    found = []
    for record, _ in lines:
        ledger.append(record)
        found.append(synced[-1])
    assert found == [on_disk for _, on_disk in lines]
    assert len(synced) - 1 == 4
    ledger.close()


def test_every_line_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(3):
        ledger.append(trial(f"t{number:04d}"))
        assert len((tmp_path / LEDGER).read_text().splitlines()) == number + 1
    ledger.close()


def test_a_torn_last_line_is_cut_and_the_rest_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(trial("t0000"))
    ledger.close()
    with open(tmp_path / LEDGER, "a") as file:
        file.write('{"kind": "report", "tri')
    assert [record.kind for record in read(tmp_path / LEDGER)] == ["trial"]
    again = Ledger(tmp_path)
    assert list(again.state.trials) == ["t0000"]
    again.append(trial("t0001"))
    again.close()
    assert list(replay(tmp_path / LEDGER).trials) == ["t0000", "t0001"]


def changed(record: Record, **changes: object) -> str:
    return json.dumps({**json.loads(encode(record)), **changes})


STUDY = StudyRecord("s", 0, "t", {}, "x", {}, {}, {}, {})
REPORT = ReportRecord("t0000", 0, 1, {"val/miou": 0.5})
END = EndRecord("t0000", "completed", "full budget", 8)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (changed(STUDY), "ledger line: a second first line"),
        (changed(STUDY, format=99), "unknown ledger format 99 (known: 2, 3, 4)"),
        (changed(STUDY, format=1), "unknown ledger format 1 (known: 2, 3, 4)"),
        (changed(STUDY, format="2"), "`format` is '2': Input should be a valid integer"),
        (changed(REPORT, trial="t0099"), "no line before it begins a trial 't0099'"),
        (changed(REPORT, epoch="1"), "`epoch` is '1': Input should be a valid integer"),
        (changed(REPORT, epoch=True), "`epoch` is True: "),
        (changed(REPORT, epoch=0), "`epoch` is 0: Input should be greater than or equal to 1"),
        (changed(REPORT, attempt=1.5), "`attempt` is 1.5: "),
        (changed(REPORT, metrics="0.5"), "`metrics` is '0.5': "),
        (changed(REPORT, metrics={"val/miou": "high"}), "`metrics/val/miou` is 'high': "),
        (changed(REPORT, metrics={"val/miou": True}), "`metrics/val/miou` is True: "),
        (changed(REPORT, loss=0.1), "unknown key `loss`"),
        (changed(END, status="completex"), "`status` is 'completex': "),
        (changed(END, by_machine=1), "`by_machine` is 1: "),
        (changed(trial("t0001"), stage="refexence"), "`stage` is 'refexence': "),
        (changed(trial("t0001"), config=None), "`config` is None: "),
        (changed(SelectRecord(["t0099"], None, None)), "begins a trial 't0099'"),
        (changed(SelectRecord([], "t0098", None)), "begins a trial 't0098'"),
        (changed(SelectRecord([], None, None, runner_up="t0097")), "begins a trial 't0097'"),
        ('{"kind": "report"}', "missing key `trial`"),
        ('{"kind": "rapport"}', "'rapport'"),
        ('{"kind": ["report"]}', "'kind'"),
        ('{"trial": "t0000"}', "'kind'"),
        (encode(END) * 2, "Extra data"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_says_what_cannot_be_is_named(tmp_path: Path, line: str, said: str) -> None:
    whole = [encode(STUDY), encode(trial()), encode(REPORT)]
    (tmp_path / LEDGER).write_text("\n".join([*whole, line, encode(END)]) + "\n")
    for reading in (load, Ledger):
        with pytest.raises(InputError, match=f"{LEDGER}:4: unreadable ledger line: ") as error:
            reading(tmp_path)
        assert said in str(error.value)


def test_a_ledger_without_its_first_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("")
    with pytest.raises(
        InputError, match=r"lacks its first line; remove the folder and begin anew$"
    ):
        load(tmp_path)
    driver = SessionLock(tmp_path)
    with pytest.raises(InputError, match=r"lacks its first line; its driver is about to write it$"):
        load(tmp_path)
    driver.close()
    (tmp_path / LEDGER).write_text(f"{encode(trial())}\n")
    with pytest.raises(InputError, match=r"lacks its first line$"):
        load(tmp_path)


def test_a_text_that_reads_like_an_infinity_stays_a_text() -> None:
    record = trial(label="inf", params={"loss": "-inf", "p": -math.inf}, config={"loss": "inf"})
    assert decode(encode(record)) == record
    study = replace(STUDY, name="inf", space={"loss": {"choice": {"inf": {"p": math.inf}}}})
    assert decode(encode(study)) == study
    nested = trial(config={"metrics": {"values": math.inf}}, params={"values": -math.inf})
    assert decode(encode(nested)) == nested, "only a line's own metrics are numbers alone"


@pytest.mark.parametrize("line", [b"{}", b'"text"', b"", b"\xff\xfe"])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / LEDGER).write_bytes(encode(trial()).encode() + b"\n" + line + b"\n")
    with pytest.raises(InputError, match=f"{LEDGER}:2: "):
        load(tmp_path)


def test_a_ledger_that_cannot_be_written_says_so_once_and_for_all(tmp_path: Path) -> None:
    from full_disk import full_at

    ledger = Ledger(tmp_path)
    ledger.append(trial("t0000"))
    size = (tmp_path / LEDGER).stat().st_size
    for room in (size + 20, 2**30):
        with full_at(room), pytest.raises(OSError, match="--resume") as caught:
            ledger.append(trial("t0001"))
        assert caught.value is ledger.failure
        assert caught.value.filename == str(tmp_path / LEDGER)
    assert list(ledger.state.trials) == ["t0000"]
    ledger.close()
    again = Ledger(tmp_path)
    assert list(again.state.trials) == ["t0000"]
    again.append(trial("t0001"))
    again.close()
    assert list(replay(tmp_path / LEDGER).trials) == ["t0000", "t0001"]


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_ledger_that_is_taken_away_takes_no_more_lines(tmp_path: Path, how: str) -> None:
    ledger = Ledger(tmp_path / "s")
    ledger.append(trial("t0000"))
    if how == "removed":
        shutil.rmtree(tmp_path / "s")
    else:
        (tmp_path / "s").rename(tmp_path / "elsewhere")
    if how == "replaced":
        Ledger(tmp_path / "s").close()
    with pytest.raises(OSError, match="the file is gone") as caught:
        ledger.append(trial("t0001"))
    assert caught.value.filename == str(tmp_path / "s" / LEDGER)
    assert list(ledger.state.trials) == ["t0000"]
    ledger.close()


def test_a_second_driver_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = SessionLock(tmp_path)
    with pytest.raises(InputError, match="another driver is working"):
        SessionLock(tmp_path)
    first.close()
    SessionLock(tmp_path).close()


def test_lines_of_a_killed_driver_are_kept_and_its_lock_is_free(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tests.ledger.test_journal import trial
from study.ledger.journal import Ledger
ledger = Ledger(Path({str(tmp_path)!r}))
for number in range(50):
    ledger.append(trial(f"t{{number:04d}}"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], check=False, cwd=root)
    assert done.returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path)
    assert len(ledger.state.trials) == 50
    ledger.close()


def test_the_fold_keeps_the_first_report_and_rung_of_an_epoch() -> None:
    state = fold(
        [
            trial(),
            ReportRecord("t0000", 0, 1, {"val/miou": 0.1}, time=1.0),
            RungRecord("t0000", 1, "main", {"val/miou": 0.1}, True, "first"),
            trial(attempt=1),
            ReportRecord("t0000", 1, 1, {"val/miou": 0.2}, time=2.0),
            RungRecord("t0000", 1, "main", {"val/miou": 0.2}, True, "again"),
        ]
    )
    only = state.trials["t0000"]
    assert only.reports == {1: {"val/miou": 0.1}}
    assert only.report_times == {1: 1.0}
    assert only.attempt == 1
    assert state.brackets[("main", 1)] == [("t0000", {"val/miou": 0.1})]


def test_status_is_derived_from_the_end() -> None:
    state = fold([trial(), EndRecord("t0000", "stopped_early", "rung 3", 3)])
    assert state.trials["t0000"].status == "stopped_early"
    assert state.completed("search") == []


def test_selection_and_finish_are_remembered() -> None:
    state = fold([SelectRecord(["t0001"], "t0002", "t0003"), FinishRecord()])
    assert state.selection is not None
    assert state.selection.confirmed == ["t0001"]
    assert state.finished


def test_a_study_is_found_by_name_or_path_and_an_unknown_one_lists_the_known(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "mine")
    ledger.append(trial())
    ledger.close()
    assert find("mine", tmp_path) == tmp_path / "mine"
    assert find(str(tmp_path / "mine"), Path("elsewhere")) == tmp_path / "mine"
    with pytest.raises(InputError, match="mine"):
        find("yours", tmp_path)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("joint-synthetic", "joint-synthetic"),
        ("mein raum ü-auf gabe'ß", "mein_raum_-auf_gabe_"),
        ("-x-tiny", "x-tiny"),
        (".yaml-tiny", "yaml-tiny"),
        ("two\nlines", "two_lines"),
        ("ü", "study"),
        ("mlflow.db", "mlflow.db_"),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_study_is_named_so_that_its_name_can_be_given_again(
    tmp_path: Path, stem: str, name: str
) -> None:
    assert new_folder(tmp_path, None, stem) == tmp_path / name
    assert new_folder(tmp_path, name, "x") == tmp_path / name
    (tmp_path / name).mkdir()
    assert new_folder(tmp_path, None, stem) == tmp_path / f"{name}-2"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 101, "1 to 100 letters"),
        ("a b", "letters, digits"),
        ("mlflow.db", "MLflow's data use this name; choose another --name"),
        ("mlartifacts", "MLflow's data use this name"),
        ("there", "there exists already; choose another --name"),
        ("study", "study exists already; resume it with --resume study, or choose another --name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / LEDGER).touch()
    with pytest.raises(InputError, match=f"^--name: .*{re.escape(said)}"):
        new_folder(tmp_path, name, "x")


def test_names_and_paths_that_are_too_long_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study named"):
        find("x" * 5000, tmp_path)
    with pytest.raises(InputError, match=r"^--storage: cannot use the folder: File name too long"):
        new_folder(tmp_path / ("x" * 300), None, "x")


def test_the_command_that_goes_on_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = Storage(Path("studies")), Storage(tmp_path / "my studies")
    for storage, name, said in (
        (here, "joint", "--resume joint"),
        (here, "a b", "--resume 'a b'"),
        (here, "-x", "--resume=-x"),
        (there, "joint", f"--resume joint --storage '{tmp_path}/my studies'"),
    ):
        command = storage.resume_command(storage.folder.resolve() / name)
        assert command == f"python -m study.run {said}"


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(OutputError, match="/proc/x"):
        Ledger(Path("/proc/x/s"))
