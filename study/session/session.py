"""Runs a study: its trials, then the answer, the exports and the report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, TextIO

from study.config.task import TaskConfig
from study.core import telemetry
from study.core.console import show
from study.core.files import write_text
from study.core.signals import Signals
from study.core.yaml_text import as_yaml
from study.ledger.plan import Plan
from study.ledger.records import SessionRecord
from study.ledger.state import State
from study.session.finished import Finished
from study.session.options import Options, argument_names, arguments_text
from study.session.prepare import Prepared, prepare, ranked, resources_for
from study.session.sharing import found_gpus
from study.storage.driving import Driving, drive
from study.storage.studies import name_in_use
from study.storage.weights import WeightsStore

if TYPE_CHECKING:
    from study.analysis.answer import Answer
    from study.config.task import NamedTask, Task
    from study.engine.cluster import Resources
    from study.engine.connection import Connection
    from study.engine.nodes import NodeCheck

UNSENT_TIMEOUT = 60.0


def _write_inputs(prepared: Prepared) -> None:
    """Write the space and the task beside the ledger, for people to read."""
    write_text(prepared.folder / "space.yaml", prepared.space.text)
    task = as_yaml(prepared.task.config.model_dump())
    write_text(prepared.folder / "task.yaml", task)
    if prepared.target is not None:
        target = as_yaml(prepared.target.config.model_dump())
        write_text(prepared.folder / "confirm_task.yaml", target)


def conclude(
    folder: Path, state: State, weights: WeightsStore, price: float | None = None
) -> tuple[tuple[Path, ...], Answer]:
    """Write the exports and the report. Returns the paths of the exports, and the answer so far.

    Of a finished study, only the weights of the trials that its exports state stay in the store.
    price: of a GPU-hour, for the report.
    """
    from study.analysis.answer import answer
    from study.reporting.exports import write_exports
    from study.reporting.html import write_report

    found = answer(state, folder)
    exports = write_exports(folder, state, found, weights)
    write_report(folder, state, found, trust=True, price=price)
    return tuple(exports), found


def run_session(
    prepared: Prepared,
    options: Options,
    connection: Connection,
    *,
    file: TextIO | None = None,
) -> Finished:
    """Run trials until the study is finished, a budget is spent or Ctrl-C; then export and report.

    A second Ctrl-C raises KeyboardInterrupt at once, without exports and report.
    """
    from study.engine.cluster import is_limited, nodes

    words = connection.wait()
    with _checked(prepared, options, connection.nodes):
        is_joined = connection.nodes.here is not None
        grows = is_joined and not is_limited()
        room = nodes(connection.nodes.closed)
        resources = resources_for(options, words, room, grows=grows)
        resources = ranked(prepared, options, resources)
        if options.finds_gpus:
            tasks = prepared.tasks_to_train
            gpus = found_gpus(tasks, options, resources, room, connection.nodes, grows=grows)
            resources = resources_for(options, words, room, grows=grows, found_gpus=gpus)
        prepared = prepared.with_gpus(resources.gpus_per_trial)
        driving = drive(prepared.storage, prepared.folder)
        try:
            return _run(prepared, options, resources, driving, connection.nodes, file)
        finally:
            driving.close()


@contextmanager
def _checked(prepared: Prepared, options: Options, nodes: NodeCheck) -> Iterator[None]:
    """Let nodes of a cluster that was joined be fit only if they see the storage, and have the data
    and the GPUs, of the study."""
    from study.engine.probe import Probe, nonce_in

    if nodes.here is None or not prepared.has_trials_to_run:
        yield
        return
    prefix = prepared.storage.prefix
    sees = prefix is None and isinstance(prepared.task.config, TaskConfig)
    folder = prepared.folder.parent
    with nonce_in(folder, prefix, prepared.name) as nonce:
        probe = Probe(
            folder=folder if sees else None,
            prefix=None if prefix is None else prefix.uri,
            nonce=nonce,
            data=prepared.data_of_trials,
            gpus=int(options.device == "gpu"),
        )
        nodes.demand(probe, show)
        yield


def _run(
    prepared: Prepared,
    options: Options,
    resources: Resources,
    driving: Driving,
    nodes: NodeCheck,
    file: TextIO | None,
) -> Finished:
    from study import tracking
    from study.engine.tuner import run_trials
    from study.reporting.live import Display
    from study.scheduler.study_scheduler import StudyScheduler

    ledger = driving.ledger
    if prepared.first_line is not None:
        if ledger.state.study is not None:
            raise name_in_use(f"{prepared.folder} exists already")
        ledger.append(prepared.first_line)
        _write_inputs(prepared)
    if prepared.amendment is not None:
        ledger.append(prepared.amendment)
        write_text(prepared.folder / "space.yaml", prepared.space.text)
    display = Display(prepared.plan, ledger.state, file)
    scheduler = StudyScheduler(
        ledger,
        prepared.plan,
        prepared.space,
        prepared.task.config,
        target=prepared.target.config if prepared.target else None,
        teachers=replace(prepared.teachers, stored=_stored(prepared)),
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
    for line in _opening_lines(prepared, resources):
        display.say(line)
    driving.tell(display.say)
    sidecar = tracking.start(prepared.folder, prepared.tracking_uri, display.say)
    unsent, unshipped = 0, ""
    with Signals(end, display.say) as signals:

        def patience() -> float:
            """Seconds to wait for what is still to be sent."""
            left = scheduler.budget.seconds_left if signals.count < 2 else 0.0
            return min(UNSENT_TIMEOUT, max(1.0, left))

        try:
            with display:
                prefix = None if prepared.prefix is None else prepared.prefix.uri
                run_trials(
                    scheduler,
                    resources,
                    prepared.folder,
                    prefix=prefix,
                    keep_weights=not options.no_weights,
                    nodes=nodes,
                    trial_timeout=options.trial_timeout,
                    gpus_only=options.device == "gpu",
                    say=display.say,
                )
            weights = WeightsStore(prepared.folder, prepared.prefix)
            exports, answer = conclude(
                prepared.folder, ledger.state, weights, options.price_per_gpu_hour
            )
            if ledger.state.finished:
                shutil.rmtree(prepared.folder / "ray", ignore_errors=True)
        finally:
            unshipped = driving.ship(patience())
            unsent = sidecar.close(patience())
    interrupted = scheduler.closing and not ledger.state.finished
    return Finished(prepared.folder, ledger.state, answer, exports, unsent, unshipped, interrupted)


def _stored(prepared: Prepared) -> Callable[[str], tuple[str, str] | None]:
    """Where the weights of a teacher are, and their hash, which is computed once."""
    store, known = WeightsStore(prepared.folder, prepared.prefix), dict[str, tuple[str, str]]()

    def stored(trial: str) -> tuple[str, str] | None:
        if trial not in known and (found := store.stored(trial)) is not None:
            known[trial] = found
        return known.get(trial)

    return stored


def _opening_lines(prepared: Prepared, resources: Resources) -> Iterator[str]:
    """The lines that a session shows first: where the study runs, and warnings about its data."""
    from study.reporting.plan_text import amended_lines, warm_lines, warning_lines

    yield f"{prepared.name} on {resources.text}"
    if prepared.prefix is not None:
        yield f"in {prepared.prefix.where}, worked on in {prepared.folder}"
    if prepared.first_line is not None:
        yield from warm_lines(prepared.first_line)
        yield from warning_lines(prepared.first_line)
    if prepared.amendment is not None:
        assert prepared.state.study is not None
        before = Plan.from_dict(prepared.state.study.plan)
        yield from amended_lines(before, prepared.amendment)
    yield from (f"warning: {fault}" for fault in prepared.data_faults)


def run_study(
    space: str | Path | Mapping[str, Any] = "joint",
    task: str | Path | Mapping[str, Any] | NamedTask | Task = "synthetic",
    *,
    data_root: str | Path | None = None,
    confirm_task: str | Path | Mapping[str, Any] | NamedTask | Task | None = None,
    confirm_data_root: str | Path | None = None,
    num_trials: int | None = None,
    confirm_seeds: int | None = None,
    longer: int | None = None,
    ablate: bool = False,
    warm_start: str | Path | Sequence[str | Path] = (),
    time_budget: float | str = math.inf,
    max_gpu_hours: float = math.inf,
    price_per_gpu_hour: float | None = None,
    device: str | None = None,
    gpus_per_trial: float | str | None = None,
    ranks: int | None = None,
    cpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    address: str | None = None,
    trial_timeout: float | str | None = None,
    storage: str | Path = "studies",
    tracking_uri: str | None = None,
    keep_checkpoints: bool = False,
    no_weights: bool = False,
    name: str | None = None,
    seed: int = 0,
    **unknown: Never,
) -> Finished:
    """Run a whole study from a notebook or a script, as `python -m study.run SPACE --task TASK`.

    The space and the task may also be mappings, and the task a `TaskConfig`. Raises InputError if
    an argument is wrong or unknown.
    """
    given = {**locals()}
    given |= given.pop("unknown")
    from study.engine.connection import Connection

    telemetry.turn_off()
    with argument_names():
        options = Options.of(given)
        with Connection(options.address, show) as connection:
            return run_session(prepare(options, connection.begin), options, connection)


run_study.__doc__ = f"{run_study.__doc__}\n{arguments_text()}\n"
