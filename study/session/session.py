"""A study at work: trials until nothing is left, then the answer, the exports and the report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from study.core import telemetry
from study.core.files import write_text
from study.core.signals import Signals
from study.core.yaml_text import as_yaml
from study.ledger.records import SessionRecord
from study.ledger.state import State
from study.session.prepare import Options, Prepared, fit, prepare
from study.storage.driving import Driving, drive
from study.storage.studies import name_in_use

if TYPE_CHECKING:
    from study.analysis.answer import Answer
    from study.engine.cluster import Resources
    from study.engine.connection import Connection

UNSENT_TIMEOUT = 60.0


def _write_inputs(prepared: Prepared) -> None:
    """What was given, beside the ledger, for people to read."""
    write_text(prepared.folder / "space.yaml", prepared.space.text)
    task = as_yaml(prepared.task.config.model_dump())
    write_text(prepared.folder / "task.yaml", task)


def conclude(folder: Path, state: State) -> tuple[tuple[Path, ...], Answer]:
    """The answer as far as there is one, the exports and the report."""
    from study.analysis.answer import answer
    from study.reporting.exports import write_exports
    from study.reporting.html import write_report

    found = answer(state, folder)
    exports = write_exports(folder, state, found)
    write_report(folder, state, found)
    return tuple(exports), found


@dataclass(frozen=True)
class Finished:
    """What a session leaves: the state, the answer and where its files are.

    unsent: ledger lines that have not reached MLflow. unshipped: in words, what has not reached the
    bucket that the study is in. interrupted: by Ctrl-C or SIGTERM, before it was finished or its
    budget was spent.
    """

    folder: Path
    state: State
    answer: Answer
    exports: tuple[Path, ...]
    unsent: int
    unshipped: str
    interrupted: bool


def run(
    prepared: Prepared,
    options: Options,
    connection: Connection,
    *,
    file: TextIO | None = None,
) -> Finished:
    """Train until nothing is left, a budget is spent or Ctrl-C, then export and report.

    A second Ctrl-C raises KeyboardInterrupt: at once, without exports and report.
    """
    from study.engine.cluster import nodes

    name = connection.wait()
    resources = fit(name, nodes(), options)
    driving = drive(prepared.storage, prepared.folder)
    try:
        return _run(prepared, options, resources, driving, file)
    finally:
        driving.close()


def _run(
    prepared: Prepared,
    options: Options,
    resources: Resources,
    driving: Driving,
    file: TextIO | None,
) -> Finished:
    from study import tracking
    from study.engine.tuner import run_trials
    from study.reporting.live import Display
    from study.reporting.plan_text import warning_lines
    from study.scheduler.study_scheduler import StudyScheduler

    ledger = driving.ledger
    if prepared.first_line is not None:
        if ledger.state.study is not None:
            raise name_in_use(f"{prepared.folder} exists already")
        ledger.append(prepared.first_line)
        _write_inputs(prepared)
    display = Display(prepared.plan, ledger.state, file)
    scheduler = StudyScheduler(
        ledger,
        prepared.plan,
        prepared.space,
        prepared.task.config,
        slots=resources.slots,
        time_budget=options.time_budget,
        gpu_hours=options.max_gpu_hours,
        gpus_per_trial=resources.gpus_per_trial,
        listeners=(display.on,),
        started=options.given_at,
    )

    def end() -> str:
        scheduler.close()
        now = "finishing the running epochs" if scheduler.live else "writing exports and report"
        return f"{now}; again to stop now"

    scheduler.write(
        SessionRecord(
            number=len(ledger.state.sessions),
            cluster=resources.cluster,
            slots=resources.slots,
            cpus_per_trial=resources.cpus_per_trial,
            gpus_per_trial=resources.gpus_per_trial,
            tracking_uri=prepared.tracking_uri,
            keep_checkpoints=options.keep_checkpoints,
        )
    )
    display.say(f"{prepared.name} on {resources.text}")
    if prepared.prefix is not None:
        display.say(f"in {prepared.prefix.where}, worked on in {prepared.folder}")
    if prepared.first_line is not None:
        for line in warning_lines(prepared.first_line.data):
            display.say(line)
    driving.tell(display.say)
    sidecar = tracking.start(prepared.folder, prepared.tracking_uri)
    unsent, unshipped = 0, ""
    with Signals(end, display.say) as signals:

        def patience() -> float:
            """Seconds for what is still to be sent."""
            left = scheduler.budget.seconds_left if signals.count < 2 else 0.0
            return min(UNSENT_TIMEOUT, max(1.0, left))

        try:
            with display:
                prefix = None if prepared.prefix is None else prepared.prefix.uri
                run_trials(scheduler, resources, prepared.folder, prefix=prefix, say=display.say)
            exports, answer = conclude(prepared.folder, ledger.state)
            if ledger.state.finished:
                shutil.rmtree(prepared.folder / "ray", ignore_errors=True)
        finally:
            unshipped = driving.ship(patience())
            unsent = sidecar.close(patience())
    interrupted = scheduler.closing and not ledger.state.finished
    return Finished(prepared.folder, ledger.state, answer, exports, unsent, unshipped, interrupted)


def run_study(
    space: str | Path | Mapping[str, Any] = "joint",
    task: str | Path | Mapping[str, Any] = "synthetic",
    **options: Any,
) -> Finished:
    """A whole study from a notebook or a script: as ``python -m study.run SPACE --task TASK``.

    Args:
        space: a search space's path, shipped name, or content.
        task: a task's path, shipped name, or content.
        options: the other fields of `Options`, such as ``storage`` or ``num_trials``.

    Raises:
        InputError: where the command would end with exit code 2.
    """
    from study.engine.connection import Connection

    telemetry.turn_off()
    given = Options(space=space, task=task, **options)
    with Connection(given.address) as connection:
        return run(prepare(given, connection.begin), given, connection)
