"""A ledger that was altered is refused with the line's number; what is proved can be kept."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from earlier import facts
from ledgers import make_study

import study.export
import study.report
import study.run
import study.status
import study.track
from study.core.errors import InputError
from study.core.names import COMPLETED
from study.ledger.journal import LEDGER, Ledger, read, replay
from study.ledger.records import (
    EndRecord,
    FinishRecord,
    Record,
    ReportRecord,
    SessionRecord,
    StudyRecord,
    TrialRecord,
)
from study.ledger.repair import repair
from study.storage.studies import load
from study.tracking.projection import Tail

FORMAT_3 = Path(__file__).parents[1] / "fixtures" / "815dbc8" / "interrupted"
TRIAL = TrialRecord("t0000", 0, "search", "recall", "recall", {}, {"loss": {}}, 0)
RECORDS: list[Record] = [
    StudyRecord("s", 0, "t", {}, "x", {}, {}, {"class_names": ["a <b>", "Straße"]}, {}),
    SessionRecord(1, "local", 1, 1.0, 0.0, "sqlite:///m.db"),
    TRIAL,
    *(ReportRecord("t0000", 0, epoch, {"val/miou": epoch / 7}) for epoch in range(1, 9)),
    EndRecord("t0000", COMPLETED, "full budget", 8),
    FinishRecord(),
]


def written(folder: Path, records: list[Record] = RECORDS) -> Path:
    ledger = Ledger(folder)
    for record in records:
        ledger.append(record)
    ledger.close()
    return folder / LEDGER


def tail(path: Path) -> list[Record]:
    return [record for _, record in Tail(path).read()]


def bits(data: bytes, seed: int) -> tuple[bytes, int]:
    """The data with one flipped bit, and the number of its line."""
    place = random.Random(seed).randrange(8 * len(data))
    flipped = bytearray(data)
    flipped[place // 8] ^= 1 << place % 8
    return bytes(flipped), data.count(b"\n", 0, place // 8) + 1


def test_every_flipped_bit_is_refused_at_its_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    for seed in range(400):
        data, line = bits(whole, seed)
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{LEDGER}:{line}: unreadable ledger line"):
            replay(path)
        with pytest.raises(InputError, match=f"{LEDGER}:{line}: "):
            tail(path)
        with pytest.raises(InputError, match=f"{LEDGER}:{line}: "):
            Ledger(tmp_path)
        assert path.read_bytes() == data, "and nothing is written"


@pytest.mark.parametrize(
    "altered",
    [
        lambda lines, at: [*lines[:at], *lines[at + 1 :]],
        lambda lines, at: [*lines[: at + 1], *lines[at:]],
        lambda lines, at: [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
    ],
    ids=["removed", "doubled", "swapped"],
)
def test_a_line_that_is_not_where_it_was_is_refused(
    tmp_path: Path, altered: Callable[[list[bytes], int], list[bytes]]
) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for at in range(len(lines) - 1):
        path.write_bytes(b"".join(altered(lines, at)))
        for reading in (replay, tail):
            with pytest.raises(InputError, match=rf"{LEDGER}:({at + 1}|{at + 2}): "):
                reading(path)


def test_removed_last_lines_are_an_earlier_moment(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    assert not replay(path).finished
    assert written(tmp_path, RECORDS[-2:]) and replay(path).finished


def test_a_whole_last_line_that_lacks_its_newline_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert replay(path).finished
    assert tail(path)[-1].kind == "finish"
    Ledger(tmp_path).close()
    assert path.read_bytes() == whole


def test_a_follower_reads_on_after_a_newline_that_came_later(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    lines = whole.splitlines(keepends=True)
    path = tmp_path / "growing.jsonl"
    follower = Tail(path)
    found = []
    for end in (len(lines[0]) - 1, len(lines[0]), len(b"".join(lines[:3])) - 9, len(whole)):
        path.write_bytes(whole[:end])
        found += [(offset, record.kind) for offset, record in follower.read()]
    assert [kind for _, kind in found] == [record.kind for record in RECORDS]
    assert list(follower.at(offset for offset, _ in found)) == list(read(tmp_path / LEDGER))


@pytest.mark.parametrize("torn", [b'{"kind": "rep', b"{", b"\0" * 40, b'{"kind": "re\0\0\0'])
def test_the_beginning_of_a_line_is_cut(tmp_path: Path, torn: bytes) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert replay(path).finished
    assert len(tail(path)) == len(RECORDS)
    Ledger(tmp_path).close()
    assert path.read_bytes() == whole


def test_other_line_ends(tmp_path: Path) -> None:
    """CR LF, which git may write, is read; CR alone makes one line of the file."""
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n", b"\r\n"))
    assert replay(path).finished and len(tail(path)) == len(RECORDS)
    path.write_bytes(whole.replace(b"\n", b"\r"))
    for reading in (replay, tail, lambda path: Ledger(path.parent)):
        with pytest.raises(InputError, match=f"{LEDGER}:1: unreadable ledger line"):
            reading(path)
    assert path.read_bytes() == whole.replace(b"\n", b"\r"), "and it is not truncated"


@pytest.mark.parametrize("command", [study.status, study.report, study.export, study.track])
def test_every_command_refuses_a_damaged_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture, command: object
) -> None:
    path = make_study(tmp_path / "demo") / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:60], *lines[61:]]))
    before = sorted(tmp_path.rglob("*"))
    assert command.main(["demo", "--storage", str(tmp_path)]) == 2  # type: ignore[attr-defined]
    err = capsys.readouterr().err
    assert f"{path}:61: unreadable ledger line: its checksum does not match" in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_resume_refuses_a_damaged_ledger(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = make_study(tmp_path / "demo") / LEDGER
    damaged, line = bits(path.read_bytes(), 3)
    path.write_bytes(damaged)
    assert study.run.main(["--resume", "demo", "--storage", str(tmp_path)]) == 2
    assert f"{path}:{line}: unreadable ledger line: " in capsys.readouterr().err
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("name", ["../../x", "a/b", "<b>t</b>", "", "t 0", ".", "-x", "t0000\n"])
def test_a_trial_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    line = json.dumps({**vars(TRIAL), "kind": "trial", "trial": name})
    path = tmp_path / LEDGER
    path.write_text(f"{line}\n")
    for reading in (replay, tail):
        with pytest.raises(InputError, match=f"{LEDGER}:1: unreadable ledger line: `trial` is"):
            reading(path)


def test_a_ledger_without_checksums_goes_on_with_them(tmp_path: Path) -> None:
    folder = shutil.copytree(FORMAT_3, tmp_path / "s")
    old = (folder / LEDGER).read_bytes()
    expected = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    assert facts(load(folder)) == expected
    begun = [trial.id for trial in load(folder).trials.values() if trial.end is None]
    path = written(folder, [ReportRecord(begun[0], 0, 4, {"val/miou": 0.5}), FinishRecord()])
    assert path.read_bytes().startswith(old)
    assert load(folder).finished
    found = tail(path)
    assert len(found) == old.count(b"\n") + 2
    whole = path.read_bytes()
    for seed in range(40):  # the first checksum is of the older lines, too
        path.write_bytes(bits(whole, seed)[0])
        with pytest.raises(InputError, match="unreadable ledger line"):
            load(folder)


@pytest.mark.parametrize("seed", range(6))
def test_a_repair_keeps_the_lines_before_the_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture, seed: int
) -> None:
    folder = make_study(tmp_path / "demo")
    path = folder / LEDGER
    whole = path.read_bytes()
    data, line = bits(whole, seed + 100)
    path.write_bytes(data)
    assert study.status.main(["demo", "--storage", str(tmp_path), "--repair"]) == 0
    out = capsys.readouterr().out
    assert path.read_bytes() == data, "the damaged file stays as it is"
    repaired = folder / "ledger.repaired-1.jsonl"
    assert repaired.read_bytes() == b"".join(whole.splitlines(keepends=True)[: line - 1])
    dropped = len(data.splitlines()) - line + 1
    assert f"{path}:{line}: " in out
    assert f"kept: the first {line - 1} lines, in {repaired}\n" in out
    assert f"dropped: the last {dropped} line" in out
    assert study.status.main(["demo", "--storage", str(tmp_path), "--repair"]) == 0
    assert (folder / "ledger.repaired-2.jsonl").read_bytes() == repaired.read_bytes()
    commands = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    assert "study.run --resume demo" in commands[1]
    subprocess.run(commands[0], shell=True, check=True, cwd=tmp_path)
    assert (folder / "ledger.damaged-1.jsonl").read_bytes() == data
    written(folder, [FinishRecord()])
    assert load(folder).finished


def test_a_repair_without_need_or_hope(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = make_study(tmp_path / "demo") / LEDGER
    before = sorted(tmp_path.rglob("*"))
    assert study.status.main(["demo", "--storage", str(tmp_path), "--repair"]) == 0
    assert capsys.readouterr().out == f"{path}: no line is damaged\n"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    assert study.status.main(["demo", "--storage", str(tmp_path), "--repair"]) == 2
    assert f"{path}:1: nothing of this ledger can be kept: " in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_repair_prints_no_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert study.status.main(["demo", "--storage", str(tmp_path), "--repair", "--json"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_what_is_dropped_is_counted_by_kind(tmp_path: Path) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:8], lines[8][:-9] + b"\n", *lines[9:]]))
    found = repair(tmp_path)
    assert found is not None
    assert (found.kept, found.dropped) == (8, 5)
    assert found.kinds == {"report": 2, "end": 1, "finish": 1}
