"""A study that is shipped: everything arrives, nothing is waited for, two drivers never mix."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

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
from study.storage.s3.bucket import READ_SECONDS, S3Prefix, StorageUnavailable
from study.storage.s3.lease import Driver
from study.storage.s3.segments import read_segments, segments
from study.storage.s3.shipper import Shipping
from study.storage.studies import Storage, load

Machine = Callable[[str], Storage]


FAST = Shipping(seconds=0.1, again=0.1)
LONG = 120.0  # seconds; nobody waits for so long


@pytest.fixture
def machine(prefix: S3Prefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine("a")`: from now on, this is machine a, with a working folder of its own."""

    def become(name: str) -> Storage:
        monkeypatch.setenv(storages.WORK_VARIABLE, str(tmp_path / name))
        return Storage.of(prefix.uri)

    return become


RECORDS = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in a folder, not to be changed."""
    return make_study(tmp_path_factory.mktemp("made") / "made")


@pytest.fixture(scope="module")
def lines(made: Path) -> list[Record]:
    """Its lines, to be written once more."""
    return list(read(made / LEDGER))


def take(storage: Storage, shipping: Shipping = FAST) -> Driving:
    """The study "s", in the hands of the machine whose storage it is."""
    driver = Driver(storage.folder.parent.name, "", 1, "")
    return drive(storage, storage.folder / "s", driver=driver, shipping=shipping)


def begin(storage: Storage, lines: list[Record], shipping: Shipping = FAST) -> Driving:
    driving = take(storage, shipping)
    for line in lines:
        driving.ledger.append(line)
    return driving


def die(driving: Driving) -> None:
    """The driver's process ends, which frees what it holds."""
    driving.ledger.close()
    driving.lock.close()


def shipped(prefix: S3Prefix) -> bytes:
    study = prefix.below("s")
    return b"".join(read_segments(study, segments(study)))


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_all_of_a_study_arrives_and_another_machine_reads_it(
    prefix: S3Prefix, machine: Machine, lines: list[Record], made: Path, capsys
) -> None:
    storage = machine("a")
    folder = storage.folder / "s"
    driving = begin(storage, lines[:RECORDS])
    wait_for(lambda: shipped(prefix) == (folder / LEDGER).read_bytes())
    shutil.copytree(made / "evidence", folder / "evidence")
    (folder / "exports").mkdir()
    (folder / "exports" / "old.yaml").write_text("old")
    wait_for(lambda: prefix.get("s/exports/old.yaml") is not None)
    (folder / "exports" / "old.yaml").unlink()
    for line in lines[RECORDS:]:
        driving.ledger.append(line)
    assert driving.ship(timeout=LONG) == ""
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
    again = take(storage)
    assert again.ship(timeout=LONG) == ""
    again.close()
    assert shipped(prefix) == (storage.folder / "s" / LEDGER).read_bytes()
    assert [record.kind for record in again.ledger.state.sessions] == ["session"]


@pytest.mark.slow
def test_a_bucket_that_goes_and_comes_is_told_of_once_each(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    said: list[str] = []
    is_away, refused = threading.Event(), []

    def fail(key: str, _: object) -> None:
        if is_away.is_set():
            refused.append(key)
            raise StorageUnavailable(f"{prefix.where}/s", "the storage does not answer")

    storage = machine("a")
    driving = begin(replace(storage, prefix=s3.Watched.of(prefix, before=fail)), lines)
    driving.tell(said.append)
    is_away.set()
    wait_for(lambda: len(refused) > 3)
    is_away.clear()
    wait_for(lambda: len(said) == 2)
    assert said[0].startswith(f"{prefix.where}/s: the storage does not answer; the study goes on")
    assert said[1] == f"{prefix.where}/s: everything is shipped again"
    assert driving.ship(timeout=LONG) == ""
    driving.close()


def test_lines_that_were_never_shipped_are_shipped_by_the_next_driver_of_that_machine(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    storage = machine("a")
    first = begin(storage, lines[:RECORDS])
    first.ship(timeout=LONG)
    for line in lines[RECORDS:]:
        first.ledger.append(line)
    die(first)
    second = take(storage)
    assert second.ledger.state == fold(read(storage.folder / "s" / LEDGER))
    assert second.ship(timeout=LONG) == ""
    second.close()
    assert shipped(prefix) == (storage.folder / "s" / LEDGER).read_bytes()


def test_a_machine_that_lost_its_study_to_another_sets_its_last_lines_aside(
    prefix: S3Prefix, machine: Machine, lines: list[Record], capsys
) -> None:
    first = machine("a")
    driving = begin(first, lines[:RECORDS])
    driving.ship(timeout=LONG)
    driving.ledger.append(lines[RECORDS])
    die(driving)  # with a line that nobody else has
    second = begin(machine("b"), [])
    assert len(list(read(second.ledger.path))) == RECORDS
    second.ledger.append(FinishRecord())
    assert second.ship(timeout=LONG) == ""
    second.close()
    back = take(machine("a"))
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
    assert "process 2 on b" in driving.ship(timeout=LONG)
    driving.close()
    assert prefix.get("s/driver.json") is not None, "the lease is the other driver's"


def test_a_second_driver_is_refused_and_a_lost_one_does_not_overwrite_its_lines(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    driving = begin(machine("a"), lines[:RECORDS])
    other = machine("b")
    with pytest.raises(InputError, match="process 1 on a is working"):
        take(other)
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


@pytest.mark.slow
def test_segments_are_of_whole_lines_whatever_their_length(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    driving = begin(machine("a"), lines[:RECORDS], replace(FAST, segment_bytes=600))
    path = driving.ledger.path
    assert max(len(line) for line in path.read_bytes().splitlines()) > 600
    with open(path, "ab") as file:
        file.write(b'{"kind": "torn')
    assert driving.ship(timeout=LONG) == ""
    driving.close()
    study = prefix.below("s")
    parts = list(read_segments(study, segments(study)))
    assert len(parts) > 10
    assert all(part.endswith(b"\n") for part in parts)
    assert b"".join(parts) + b'{"kind": "torn' == path.read_bytes()


def test_no_line_is_there_before_the_files_that_it_speaks_of(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    speaking, missing = [], []

    def look(key: str, data: bytes | BinaryIO) -> None:
        if key.startswith("ledger/") and isinstance(data, bytes):
            for name in re.findall(rb"spoken-of-\d+", data):
                speaking.append(name)
                if prefix.get(f"s/evidence/{name.decode()}") is None:
                    missing.append(name)

    driving = begin(replace(machine("a"), prefix=s3.Watched.of(prefix, before=look)), [])
    (driving.ledger.path.parent / "evidence").mkdir()
    for number in range(20):
        (driving.ledger.path.parent / "evidence" / f"spoken-of-{number}").write_text("")
        assert isinstance(lines[0], StudyRecord)
        driving.ledger.append(replace(lines[0], name=f"spoken-of-{number}"))
        time.sleep(0.03)
    assert driving.ship(timeout=LONG) == ""
    driving.close()
    assert len(speaking) == 20
    assert missing == []


def test_a_segment_whose_answer_was_lost_is_not_shipped_twice(
    prefix: S3Prefix, machine: Machine, lines: list[Record]
) -> None:
    lost = threading.Event()

    def answer_lost(key: str) -> None:
        if key.startswith("ledger/") and not lost.is_set():
            lost.set()
            raise StorageUnavailable(prefix.where, "Read timeout")

    storage = replace(machine("a"), prefix=s3.Watched.of(prefix, after=answer_lost))
    driving = begin(storage, lines)
    assert driving.ship(timeout=LONG) == ""
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
