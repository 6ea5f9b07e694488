"""A command as the training of a trial: any script, in any environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from study.config.own_training import CommandTrial
from study.core.errors import InputError
from study.core.files import write_text
from study.core.yaml_text import as_yaml
from study.losses.config import FactoryLoss
from study.losses.digest import ECHO
from study.trials import supervise
from study.trials.context import TrialContext
from study.trials.reports import Reader, Report, reader

LOSS_YAML, LOSS_PYTHON, STOP = "loss.yaml", "loss.py", "stop"
POLL = 0.2
LAST_SILENCE = 60.0
TAIL = 65536  # bytes of the log that are searched for a reason
MEMORY_KILL = (-9, 137)
OUT_OF_GPU = ("CUDA out of memory", "CUDA error: out of memory", "OutOfMemoryError")


class OutOfMemory(Exception):
    """The command ran out of memory. on_gpu: of the GPU's."""

    def __init__(self, text: str, *, on_gpu: bool) -> None:
        super().__init__(text)
        self.on_gpu = on_gpu


def train_command(context: TrialContext, trial: CommandTrial) -> None:
    """Run the command, and report what it reports.

    Raises:
        InputError: where it cannot be started, reports what is no report, fails, or ends before its
            last epoch.
        OutOfMemory: where it says so, or was killed.
    """
    context.echo_file.unlink(missing_ok=True)
    words = command_of(context, trial)
    stop = context.folder / STOP
    stop.unlink(missing_ok=True)
    log = context.folder / supervise.LOG
    begin = log.stat().st_size if log.is_file() else 0
    reports = reader(trial, context.folder)
    context.beat("in its command, before the first epoch")
    places = (str(context.folder), str(stop), str(Path(trial.cwd or context.folder).absolute()))
    log.touch()
    with subprocess.Popen(
        [sys.executable, supervise.__file__, *places, str(trial.grace_s), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(context, trial),
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _follow(context, process, reports, log)
        finally:
            process.stdin.close()
            said = process.stdout.read()
    if not context.has_stopped:
        _judge(context, reports, json.loads(said or b"{}"), log, begin)


def _follow(
    context: TrialContext, process: subprocess.Popen[bytes], reports: Reader, log: Path
) -> None:
    """Pass on each report until the command ends, or the study ends the trial.

    The last epoch's waits until the command has ended, which may still test or save something, or
    has been silent for LAST_SILENCE: the study ends a trial with it.
    """
    size, heard = -1, time.monotonic()
    held: list[Report] = []
    first = log.stat()
    while True:
        ended = process.poll() is not None
        if not log.is_file() or not os.path.samestat(first, log.stat()):
            raise InputError(
                f"the command has removed {log.name} from its trial's folder, in which the study "
                "hears of it",
                hint="let it clear or write a folder below that, such as {folder}/out",
            )
        held += reports.new(ended=ended)
        over = ended or time.monotonic() - heard > LAST_SILENCE
        while held and (over or held[0][0] < context.num_epochs):
            if not context.report(*held.pop(0)):
                return
        if ended:
            return
        now = log.stat().st_size
        if now != size:
            size, heard = now, time.monotonic()
            context.beat()
        time.sleep(POLL)


def _judge(
    context: TrialContext, reports: Reader, end: dict[str, Any], log: Path, begin: int
) -> None:
    """Raise the reason why the command has not trained its trial to the end."""
    if "cannot_start" in end:
        raise InputError(
            f"the command cannot be started: {end['cannot_start']}", key="trial/command"
        )
    code, done = end.get("code"), f"after {context.reported} of {context.num_epochs} epochs"
    text = _tail(log, begin)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    said = f"; it said last: {last.strip():.200}" if last else ""
    if code == 0:
        message = f"the command ended {done}, with exit code 0{said}"
        raise InputError(message, hint=reports.hint())
    if any(words in text for words in OUT_OF_GPU):
        raise OutOfMemory(f"the command ran out of GPU memory {done}{said}", on_gpu=True)
    if code in MEMORY_KILL or "MemoryError" in last:
        raise OutOfMemory(
            f"the command was killed {done}, perhaps for want of memory{said}", on_gpu=False
        )
    how = f"by signal {-code}" if isinstance(code, int) and code < 0 else f"with exit code {code}"
    raise InputError(f"the command failed {done}, {how}{said}")


def _tail(log: Path, begin: int) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(begin, log.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def command_of(context: TrialContext, trial: CommandTrial) -> list[str]:
    """The words of the command; writes the files of the loss that it names."""
    folder, words = context.folder, trial.words
    values = {
        "loss_file": str(folder / LOSS_YAML),
        "loss_python": str(folder / LOSS_PYTHON),
        "seed": str(context.seed),
        "lr_scale": repr(context.lr_scale),
        "epochs": str(context.num_epochs),
        "folder": str(folder),
        "stop_file": str(folder / STOP),
        "test": str(int(context.is_confirmation)),
        "threads": str(context.num_threads),
    }
    write_text(folder / LOSS_YAML, as_yaml(context.loss_config.model_dump(mode="json")))
    if "loss_python" in trial.placeholders:
        write_text(folder / LOSS_PYTHON, _python(context))
    filled = [word.format(**values) for word in words]
    # what runs in the trial's folder is given the files of where the study was begun
    return filled if trial.cwd else [_found(filled[0], is_program=True), *map(_found, filled[1:])]


def _found(word: str, *, is_program: bool = False) -> str:
    """A word that names a file, or with a slash a folder, as an absolute path; also in
    `--config=configs/a.yaml`."""
    is_path = os.sep in word and os.path.exists(word)
    is_file = not is_program and os.path.isfile(word)
    if is_path or is_file:
        return os.path.abspath(word)
    name, sign, value = word.partition("=")
    return f"{name}{sign}{_found(value)}" if value and not is_program else word


def _python(context: TrialContext) -> str:
    """The loss as a file that needs torch alone."""
    from study.losses.standalone.source import StandaloneLoss, loss_source

    classes, config = context.classes, context.loss_config
    if classes is None:
        hint = "add classes: {names: [...], pixels: [...]}"
        raise InputError("{loss_python} needs the classes of the task", hint=hint, key="classes")
    if isinstance(config, FactoryLoss):
        message = (
            f"{{loss_python}} cannot hold the loss {config.factory}, which is code of your own"
        )
        raise InputError(message, hint="use {loss_file}", key="trial/command")
    loss = StandaloneLoss(
        config,
        len(classes.names),
        classes.names,
        None if classes.pixels is None else [classes.pixels],
        lr_scale=context.lr_scale,
        origin=[f"Of trial {context.place.trial}."],
        echo=True,
        ignore_index=classes.ignore,
    )
    try:
        return loss_source(loss)
    except InputError as error:
        raise error.below("loss") from error
    except ValueError as error:
        raise InputError(str(error), key="loss") from error


def _environment(context: TrialContext, trial: CommandTrial) -> dict[str, str]:
    own = {
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(context.num_threads),
        ECHO: str(context.echo_file),
    }
    return {**os.environ, **own, **trial.env}
