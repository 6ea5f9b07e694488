"""The study's memory: an append-only file of JSON lines, and the fold that gives its state.

Every decision, report and trial end is one line, written with one ``write`` before anything acts
on it. A killed process loses nothing it wrote; a line cut in the middle by a lost machine is
dropped on the next open. The state of a study is a pure fold over the lines, live and on resume
alike, so there is no second code path that restores.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from study.compact import Numbers, Trees
from study.errors import InputError
from study.names import COMPLETED, CONFIRM, STOPPED_EARLY
from study.records import (
    FORMAT,
    EndRecord,
    FaultRecord,
    FinishRecord,
    Record,
    ReportRecord,
    RungRecord,
    SelectRecord,
    SessionRecord,
    StudyRecord,
    TrialRecord,
    WaitRecord,
    decode,
    encode,
)

LEDGER, LOCK = "ledger.jsonl", "lock"
LOOKS = 5  # at a lock that `is_driven` may hold for a moment
FSYNC_SECONDS = 1.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read(path: Path) -> Iterator[Record]:
    """All whole lines of a ledger; a last line without its newline is left out."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield decode(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"a ledger line of format {FORMAT} must stand here, but got {error!r}",
                    file=path,
                    line=number,
                ) from error


@dataclass(slots=True)
class Trial:
    """What the lines say of one trial. `reports` keeps the first report of each epoch; `verdict` is
    that of the last rung, `gpu_s` the GPU-seconds of all epochs, repeated ones included. `waits`:
    no machine can hold it now."""

    id: str
    number: int
    stage: str
    label: str
    family: str
    params: dict[str, Any] | None
    config: dict[str, Any]
    seed: int
    source: str | None
    started: float
    handed_out: float
    attempt: int = 0
    waits: bool = False
    gpus: float = 0.0
    gpu_s: float = 0.0
    faults: list[FaultRecord] = field(default_factory=list)
    reports: dict[int, Mapping[str, float]] = field(default_factory=dict)
    report_times: dict[int, float] = field(default_factory=dict)
    rungs: dict[int, dict[str, float]] = field(default_factory=dict)
    verdict: RungRecord | None = None
    checkpoints: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    end: EndRecord | None = None

    @property
    def status(self) -> str | None:
        """completed, stopped_early or failed; None while it is unfinished."""
        return self.end.status if self.end else None

    @property
    def epochs(self) -> int:
        """Epochs reported so far."""
        return max(self.reports, default=0)

    @property
    def last(self) -> Mapping[str, float]:
        """The metrics of the last epoch: a trial's result once it is completed."""
        return self.reports[self.epochs] if self.reports else {}


@dataclass
class State:
    """The fold over a ledger's lines. `selection_holds` until one more searched trial ends.
    `num_epochs` and `gpu_s` are sums over the trials: their epochs, their GPU-seconds."""

    study: StudyRecord | None = None
    sessions: list[SessionRecord] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)
    ladders: dict[tuple[str, int], list[tuple[str, dict[str, float]]]] = field(default_factory=dict)
    selection: SelectRecord | None = None
    selection_holds: bool = False
    finished: bool = False
    num_epochs: int = 0
    gpu_s: float = 0.0
    _by_stage: dict[str, list[tuple[int, Trial]]] = field(default_factory=dict)
    _unfinished: dict[str, Trial] = field(default_factory=dict)
    _trees: Trees = field(default_factory=Trees, compare=False)

    def apply(self, record: Record) -> None:
        """Take one more line into account. Repeated epochs and rungs change nothing."""
        match record:
            case StudyRecord():
                self.study = record
            case SessionRecord():
                self.sessions.append(record)
                self.finished = False
            case TrialRecord():
                self._trial(record)
            case ReportRecord():
                trial = self.trials[record.trial]
                trial.waits = False
                gpu_s = trial.gpus * record.metrics.get("time/epoch_s", 0.0)
                trial.gpu_s += gpu_s
                self.gpu_s += gpu_s
                if record.epoch not in trial.reports:
                    self.num_epochs += 1
                    trial.reports[record.epoch] = Numbers(record.metrics)
                    trial.report_times[record.epoch] = record.time
                if record.checkpoint:
                    trial.checkpoints.append(record.checkpoint)
                if record.environment:
                    trial.environment = self._trees.shared(record.environment, "here")
            case RungRecord():
                trial = self.trials[record.trial]
                if record.epoch not in trial.rungs:
                    trial.rungs[record.epoch] = record.values
                    trial.verdict = record
                    rung = self.ladders.setdefault((record.ladder, record.epoch), [])
                    rung.append((record.trial, record.values))
            case FaultRecord():
                self.trials[record.trial].faults.append(record)
            case WaitRecord():
                self.trials[record.trial].waits = True
            case EndRecord():
                self.trials[record.trial].end = record
                self._unfinished.pop(record.trial, None)
                if self.trials[record.trial].stage != CONFIRM:
                    self.selection_holds = False
            case SelectRecord():
                self.selection = record
                self.selection_holds = True
            case FinishRecord():
                self.finished = True

    def _trial(self, record: TrialRecord) -> None:
        gpus = record.gpus
        if gpus is None:
            gpus = self.sessions[-1].gpus_per_trial if self.sessions else 0.0
        if record.trial in self.trials:
            self.trials[record.trial].attempt = record.attempt
            self.trials[record.trial].handed_out = record.time
            self.trials[record.trial].waits = False
            self.trials[record.trial].gpus = gpus
            return
        trial = Trial(
            id=record.trial,
            number=record.number,
            stage=record.stage,
            label=record.label,
            family=record.family,
            params=record.params,
            config=self._trees.shared(record.config, "config"),
            seed=record.seed,
            source=record.source,
            started=record.time,
            handed_out=record.time,
            attempt=record.attempt,
            gpus=gpus,
        )
        self._by_stage.setdefault(trial.stage, []).append((len(self.trials), trial))
        self.trials[trial.id] = self._unfinished[trial.id] = trial

    def unfinished(self) -> list[Trial]:
        """The trials without an end, in the order in which they were handed out."""
        return list(self._unfinished.values())

    def count(self, *stages: str) -> int:
        """How many trials of these stages were handed out."""
        return sum(len(self._by_stage.get(stage, ())) for stage in stages)

    def of_stage(self, *stages: str) -> list[Trial]:
        """The trials of these stages, in the order in which they were handed out."""
        found = [item for stage in stages for item in self._by_stage.get(stage, ())]
        if len(stages) > 1:
            found.sort(key=itemgetter(0))
        return [trial for _, trial in found]

    def completed(self, *stages: str) -> list[Trial]:
        """Those that reached the full budget."""
        return [trial for trial in self.of_stage(*stages) if trial.status == COMPLETED]

    def stopped(self) -> list[Trial]:
        """Those that a ladder stopped."""
        return [trial for trial in self.trials.values() if trial.status == STOPPED_EARLY]

    def confirmations(self, source: str) -> list[Trial]:
        """The completed confirmation trials of one trial's config."""
        return [trial for trial in self.completed(CONFIRM) if trial.source == source]


def fold(records: Iterable[Record]) -> State:
    """The state after these records."""
    state = State()
    for record in records:
        state.apply(record)
    return state


def find(name: str, storage: Path) -> Path:
    """The folder of a study: a name below `storage`, else a path."""
    storage = storage.expanduser()
    for folder in (storage / name, Path(name).expanduser()):
        if (folder / LEDGER).is_file():
            return folder.resolve()
    known = sorted(path.parent.name for path in storage.glob(f"*/{LEDGER}"))
    listed = ", ".join(known) if known else "none"
    raise InputError(f"a study of the name must be in {storage} ({listed}), but got {name!r}")


def new_folder(storage: Path, name: str | None, stem: str) -> Path:
    """The folder of a study to come, which is not made yet: below `storage`, of this name, else of
    the stem and the first number that is free."""
    storage = storage.expanduser().resolve()
    place = next(path for path in (storage, *storage.parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise InputError("it must be a folder that can be written", file=place, key="--storage")
    if name is None:
        count = 1
        while (storage / (stem if count == 1 else f"{stem}-{count}")).exists():
            count += 1
        return storage / (stem if count == 1 else f"{stem}-{count}")
    if not NAME.fullmatch(name):
        raise InputError(
            f"a name must be letters, digits, '.', '_' and '-', but got {name!r}", key="--name"
        )
    folder = storage / name
    if folder.exists():
        raise InputError(
            f"the name must be free, but {folder} is there: "
            f"--resume {name} goes on with it, another --name begins anew",
            key="--name",
        )
    return folder


def load(folder: Path) -> State:
    """The state of the study in this folder."""
    path = folder / LEDGER
    if not path.is_file():
        raise InputError(f"a study's {LEDGER} must be there, but there is none", file=folder)
    return fold(read(path))


def is_driven(folder: Path) -> bool:
    """Whether a driver works on the study now."""
    try:
        with open(folder / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(path: Path) -> TextIO | None:
    """The file, locked; None where another process holds it for longer than a look takes."""
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.1)
        else:
            return file
    file.close()
    return None


def _is_half(record: Record) -> bool:
    """A verdict that ends its trial: the end's line follows, and both are synced at once."""
    return isinstance(record, RungRecord) and not record.keep


class Ledger:
    """The writing end. One process at a time: the folder's lock is held until close.

    Lines reach the file with one ``write`` each; decisions are synced to the disk at once, reports
    within a second. The first line that the disk does not take is the end: `failure` says why, and
    every later `append` raises it again. What was written before stays whole.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = _lock(folder / LOCK)
        if lock_file is None:
            raise InputError(
                "one driver at a time may work on a study, but another one holds its lock",
                file=folder,
            )
        self._lock_file = lock_file
        self.path = folder / LEDGER
        self.state = State()
        self._cut_torn_line()
        if self.path.exists():
            self.state = fold(read(self.path))
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.failure: OSError | None = None
        self._dirty = False
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, daemon=True, name="ledger-sync")
        self._syncer.start()

    def _cut_torn_line(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

    def _sync_loop(self) -> None:
        while not self._closing.wait(FSYNC_SECONDS):
            if self._dirty:
                self._dirty = False
                try:
                    os.fsync(self._file)
                except OSError as error:
                    self.failure = self._failed(error)
                    return

    def _failed(self, error: OSError) -> OSError:
        text = f"{error.strerror}: the study ends here; with room again, --resume goes on with it"
        return OSError(error.errno, text, str(self.path))

    def append(self, record: Record) -> Record:
        """Write the record, stamped with the time, then take the line into the state.

        The state is that of the line read back, so it is what a resume will see. Raises OSError
        where the line cannot be written.
        """
        record = dataclasses.replace(record, time=round(time.time(), 3))
        text = encode(record)
        line = f"{text}\n".encode()
        if self.failure is not None:
            raise self.failure
        try:
            while line:
                line = line[os.write(self._file, line) :]
            if isinstance(record, ReportRecord) or _is_half(record):
                self._dirty = True
            else:
                os.fsync(self._file)
                self._dirty = False
        except OSError as error:
            self.failure = self._failed(error)
            raise self.failure from error
        self.state.apply(decode(text))
        return record

    def close(self) -> None:
        """Sync, and give the lock back."""
        self._closing.set()
        self._syncer.join()
        try:
            if self.failure is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)
            self._lock_file.close()
