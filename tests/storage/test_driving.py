"""A study that is shipped: everything arrives, nothing is waited for, two drivers never mix."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import s3
from ledgers import make_study

from study import export, status, track
from study.core.errors import InputError
from study.ledger.journal import LEDGER, Ledger, read
from study.ledger.records import FinishRecord, Record, SessionRecord, StudyRecord
from study.ledger.state import fold
from study.session.prepare import tracked_at
from study.storage import studies as storages
from study.storage.driving import Driving, drive
from study.storage.s3 import shipper as shippers
from study.storage.s3.bucket import READ_SECONDS, S3Prefix, StorageUnavailable
from study.storage.s3.lease import Driver
from study.storage.s3.segments import read_segments, segments
from study.storage.studies import Storage, load

Machine = Callable[[str], Storage]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shippers, "SHIP_SECONDS", 0.1)
    monkeypatch.setattr(shippers, "AGAIN_SECONDS", 0.1)


@pytest.fixture
def machine(prefix: S3Prefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine("a")`: from now on, this is machine a, with a working folder of its own."""

    def become(name: str) -> Storage:
        monkeypatch.setenv(storages.WORK_VARIABLE, str(tmp_path / name))
        monkeypatch.setattr(Driver, "this", lambda: Driver(name, "", 1, ""))
        return Storage.of(prefix.uri)

    return become


RECORDS = 30


@pytest.fixture
def lines(tmp_path: Path) -> list[Record]:
    """The lines of a study, to be written once more."""
    make_study(tmp_path / "made")
    return list(read(tmp_path / "made" / LEDGER))


def begin(storage: Storage, lines: list[Record]) -> Driving:
    driving = drive(storage, storage.folder / "s")
    for line in lines:
        driving.ledger.append(line)
    return driving


def shipped(prefix: S3Prefix) -> bytes:
    study = prefix.below("s")
    return b"".join(read_segments(study, segments(study)))


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_all_of_a_study_arrives_and_another_machine_reads_it(
    prefix: S3Prefix, machine: Machine, lines: list[Record], tmp_path: Path, capsys
) -> None:
    storage = machine("a")
    folder = storage.folder / "s"
    driving = begin(storage, lines[:RECORDS])
    wait_for(lambda: shipped(prefix) == (folder / LEDGER).read_bytes())
    (tmp_path / "made" / "evidence").rename(folder / "evidence")
    (folder / "exports").mkdir()
    (folder / "exports" / "old.yaml").write_text("old")
    wait_for(lambda: prefix.get("s/exports/old.yaml") is not None)
    (folder / "exports" / "old.yaml").unlink()
    for line in lines[RECORDS:]:
        driving.ledger.append(line)
    assert driving.ship(timeout=30.0) == ""
    driving.close()
    assert shipped(prefix) == (folder / LEDGER).read_bytes()
    assert len(segments(prefix.below("s"))) >= 2
    there = {item.key for item in prefix.items("s/") if "/ledger/" not in item.key}
    assert there == {f"s/{path.relative_to(folder)}" for path in folder.rglob("evidence/*")}

    other = machine("b")
    assert status.main(["s", "--storage", prefix.uri]) == 0
    assert "finished" in capsys.readouterr().out.splitlines()[0]
    assert not (other.folder / "s" / "evidence").exists(), "a status needs the ledger alone"
    assert export.main(["s", "--storage", prefix.uri]) == 0
    assert load(other.folder / "s") == load(folder)
    assert prefix.get("s/exports/best_miou.yaml") is not None, "what a command writes is shipped"


def test_a_bucket_that_is_silent_holds_up_nothing_and_gets_everything_afterwards(
    prefix: S3Prefix, machine: Machine, lines: list[Record], s3_server: s3.Server
) -> None:
    storage = machine("a")
    driving = begin(storage, lines[:RECORDS])
    with s3_server.silent():
        start = time.monotonic()
        for line in lines[RECORDS:]:
            driving.ledger.append(line)
        assert time.monotonic() - start < READ_SECONDS, "no line has waited for an answer"
        said = driving.ship(timeout=0.3)
        assert re.match(r"\d+ ledger lines, and what follows from them, have not arrived: ", said)
    driving.close()
    again = drive(storage, storage.folder / "s")
    assert again.ship(timeout=60.0) == ""
    again.close()
    assert shipped(prefix) == (storage.folder / "s" / LEDGER).read_bytes()
    assert [record.kind for record in again.ledger.state.sessions] == ["session"]


def test_a_bucket_that_goes_and_comes_is_told_of_once_each(
    prefix: S3Prefix, machine: Machine, lines: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    driving = begin(machine("a"), lines)
    driving.tell(said.append)
    with monkeypatch.context() as away:

        def fail(self: S3Prefix, *_: object, **__: object) -> str:
            raise StorageUnavailable(self.where, "the storage does not answer")

        away.setattr(S3Prefix, "put", fail)
        wait_for(lambda: bool(said))
        time.sleep(0.5)
    wait_for(lambda: len(said) == 2)
    assert said[0].startswith(f"{prefix.where}/s: the storage does not answer; the study goes on")
    assert said[1] == f"{prefix.where}/s: everything is shipped again"
    assert driving.ship(timeout=30.0) == ""
    driving.close()


def test_lines_that_were_never_shipped_are_shipped_by_the_next_driver_of_that_machine(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    storage = machine("a")
    first = begin(storage, lines[:RECORDS])
    first.ship(timeout=30.0)
    for line in lines[RECORDS:]:
        first.ledger.append(line)
    first.ledger.close()  # and the driver dies
    second = drive(storage, storage.folder / "s")
    assert second.ledger.state == fold(read(storage.folder / "s" / LEDGER))
    assert second.ship(timeout=30.0) == ""
    second.close()
    assert shipped(prefix) == (storage.folder / "s" / LEDGER).read_bytes()


def test_a_machine_that_lost_its_study_to_another_sets_its_last_lines_aside(
    prefix: S3Prefix, machine: Machine, lines: list[Record], capsys
) -> None:
    first = machine("a")
    driving = begin(first, lines[:RECORDS])
    driving.ship(timeout=30.0)
    driving.ledger.append(lines[RECORDS])
    driving.ledger.close()  # and the machine dies with a line that nobody else has
    second = begin(machine("b"), [])
    assert len(list(read(second.ledger.path))) == RECORDS
    second.ledger.append(FinishRecord())
    assert second.ship(timeout=30.0) == ""
    second.close()
    back = drive(machine("a"), first.folder / "s")
    assert back.ledger.state.finished
    back.close()
    assert (first.folder / "s" / LEDGER).read_bytes() == shipped(prefix)
    (aside,) = (first.folder / "s").glob("ledger.set-aside-*")
    assert len(aside.read_text().splitlines()) == RECORDS + 1
    assert f"are now in {aside}" in capsys.readouterr().err


def test_a_driver_whose_study_was_taken_over_writes_no_further_line(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    storage = machine("a")
    driving = begin(storage, lines[:RECORDS])
    wait_for(lambda: len(shipped(prefix)) > 0)
    prefix.put("s/driver.json", b'{"host": "b", "boot": "", "pid": 2, "started": ""}')
    wait_for(lambda: driving.ledger.failure is not None)
    with pytest.raises(OSError, match="process 2 on b has taken the study over: it ends here"):
        driving.ledger.append(lines[RECORDS])
    assert "process 2 on b" in driving.ship(timeout=30.0)
    driving.close()
    assert prefix.get("s/driver.json") is not None, "the lease is the other driver's"


def test_a_second_driver_is_refused_and_a_lost_one_does_not_overwrite_its_lines(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    driving = begin(machine("a"), lines[:RECORDS])
    other = machine("b")
    with pytest.raises(InputError, match="process 1 on a is working"):
        drive(other, other.folder / "s")
    wait_for(lambda: len(shipped(prefix)) == driving.ledger.path.stat().st_size)
    study = prefix.below("s")
    number = len(segments(study))
    study.put(f"ledger/{number:08d}.jsonl", b"another driver's\n")
    driving.ledger.append(lines[RECORDS])
    wait_for(lambda: driving.ledger.failure is not None)
    assert "another driver has shipped the study's next lines" in str(driving.ledger.failure)
    driving.close()
    content = study.get(f"ledger/{number:08d}.jsonl")
    assert content is not None
    assert content.data == b"another driver's\n"


def test_segments_are_of_whole_lines_whatever_their_length(
    prefix: S3Prefix, machine: Machine, lines: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shippers, "MAX_BYTES", 600)
    driving = begin(machine("a"), lines)
    path = driving.ledger.path
    assert max(len(line) for line in path.read_bytes().splitlines()) > 600
    with open(path, "ab") as file:
        file.write(b'{"kind": "torn')
    assert driving.ship(timeout=30.0) == ""
    driving.close()
    study = prefix.below("s")
    parts = list(read_segments(study, segments(study)))
    assert len(parts) > 10
    assert all(part.endswith(b"\n") for part in parts)
    assert b"".join(parts) + b'{"kind": "torn' == path.read_bytes()


def test_no_line_is_there_before_the_files_that_it_speaks_of(
    prefix: S3Prefix, machine: Machine, lines: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = shippers.write_segment
    speaking = []

    def look(*arguments) -> None:
        for name in re.findall(rb"spoken-of-\d+", arguments[2]):
            speaking.append(name)
            assert prefix.get(f"s/evidence/{name.decode()}") is not None
        write(*arguments)

    monkeypatch.setattr(shippers, "write_segment", look)
    driving = begin(machine("a"), [])
    (driving.ledger.path.parent / "evidence").mkdir()
    for number in range(20):
        (driving.ledger.path.parent / "evidence" / f"spoken-of-{number}").write_text("")
        assert isinstance(lines[0], StudyRecord)
        driving.ledger.append(replace(lines[0], name=f"spoken-of-{number}"))
        time.sleep(0.03)
    assert driving.ship(timeout=30.0) == ""
    driving.close()
    assert len(speaking) == 20


def test_a_segment_whose_answer_was_lost_is_not_shipped_twice(
    prefix: S3Prefix, machine: Machine, lines: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = shippers.write_segment
    lost = threading.Event()

    def answer_lost(*arguments) -> None:
        write(*arguments)
        if not lost.is_set():
            lost.set()
            raise StorageUnavailable(prefix.where, "Read timeout")

    monkeypatch.setattr(shippers, "write_segment", answer_lost)
    driving = begin(machine("a"), lines)
    assert driving.ship(timeout=30.0) == ""
    assert lost.is_set()
    assert shipped(prefix) == driving.ledger.path.read_bytes()
    driving.close()


def test_the_name_of_a_study_is_free_in_the_bucket_and_on_this_machine(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    begin(machine("a"), lines[:1]).close()
    other = machine("b")
    assert other.new_folder(None, "s") == other.folder / "s-2"
    with pytest.raises(
        InputError, match=f"{prefix.where}/s exists already; resume it with --resume s"
    ):
        other.new_folder("s", "s")
    with pytest.raises(InputError, match=rf"no study named 'x' in {prefix.where}/ \(found: s\)"):
        other.find("x")
    (other.folder / "left").mkdir(parents=True)
    with pytest.raises(InputError, match="exists already"):
        other.new_folder("left", "s")


def test_a_working_folder_that_is_driven_is_not_fetched_into(
    prefix: S3Prefix, machine: Machine, lines: list[Record], s3_server: s3.Server
) -> None:
    storage = machine("a")
    driving = begin(storage, lines)
    with s3_server.silent():
        assert storage.find("s") == storage.folder / "s"
        assert storage.is_driven(storage.folder / "s")
    driving.close()
    assert not storage.is_driven(storage.folder / "s")


def test_mlflow_is_left_to_the_driver_on_another_machine(
    prefix: S3Prefix,
    machine: Machine,
    lines: list[Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = f"sqlite:///{tmp_path}/runs.db"
    session = next(line for line in lines if isinstance(line, SessionRecord))
    driving = begin(machine("a"), [lines[0], replace(session, tracking_uri=uri)])
    wait_for(lambda: len(shipped(prefix)) == driving.ledger.path.stat().st_size)
    machine("b")
    assert track.main(["s", "--storage", prefix.uri]) == 2
    assert "the study's driver is tracking it already" in capsys.readouterr().err
    assert not (tmp_path / "runs.db").exists()
    driving.close()


def test_a_database_of_a_lost_machine_gives_way_to_one_here(
    prefix: S3Prefix, machine: Machine, lines: list[Record], tmp_path: Path
) -> None:
    storage = machine("a")
    folder, there = storage.folder / "s", tmp_path / "there"
    session = next(line for line in lines if isinstance(line, SessionRecord))
    state = fold([replace(session, tracking_uri=f"sqlite:///{there}/mlflow.db")])
    assert tracked_at(state, storage, folder) == f"sqlite:///{storage.folder}/mlflow.db"
    there.mkdir()
    assert tracked_at(state, storage, folder) == f"sqlite:///{there}/mlflow.db"
    server = fold([replace(session, tracking_uri="http://127.0.0.1:5000")])
    assert tracked_at(server, storage, folder) == "http://127.0.0.1:5000"


def test_a_ledger_of_a_folder_has_no_shipper(tmp_path: Path) -> None:
    driving = drive(Storage.of(tmp_path), tmp_path / "s")
    assert isinstance(driving.ledger, Ledger)
    assert driving.ship(timeout=0.0) == ""
    driving.close()
