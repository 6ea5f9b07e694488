"""The status of a study, as lines for a person and as a mapping for a script."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from study.analysis.option_epochs import option_epochs
from study.core.names import COMPLETED, FAILED, STOPPED_EARLY
from study.ledger.plan import Plan
from study.ledger.state import State, Trial
from study.reporting.live import STAGES, WAITS, Progress, best, duration
from study.scheduler.retries import GPU_MEMORY
from study.search.asha import bars

RATE_WINDOW = 600.0  # seconds of reports that the rate is computed from
RUNNING = "running"
GPU, CPU = "GPU", "CPU"


def status(state: State, *, driven: bool, now: float, resume: str | None = None) -> dict[str, Any]:
    """Everything that `python -m study.status` shows, in plain types.

    Args:
        driven: whether a driver holds the study's lock.
        now: seconds since 1970.
        resume: the command that resumes the study.

    Returns:
        Times are in seconds; `device_hours` are those of `device`: a trial's epochs, repeated ones
        included, times its GPU fraction then; on CPUs its epochs times its CPUs.
    """
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    progress = Progress(plan, state)
    trials = list(state.trials.values())
    rate = _epochs_per_second(state, now) if driven else None
    left = 0 if state.finished else progress.epochs_left
    device, per_trial, epoch_s = _cost(state)
    return {
        "study": state.study.name,
        "space": state.study.space_name,
        "task": state.study.task_name,
        "state": "finished" if state.finished else RUNNING if driven else "not running",
        "resume": resume or f"python -m study.run --resume {state.study.name}",
        "cluster": state.sessions[-1].cluster if state.sessions else None,
        "sessions": len(state.sessions),
        "trials": {stage: _counts(state, stage) for stage in STAGES},
        "running": [_running(trial, plan, now) for trial in trials if trial.end is None],
        "rungs": [_rung(*rung, values, plan) for rung, values in state.brackets.items()],
        "best": {key: _best(state, key) for key in plan.objectives},
        "failed": [
            {"trial": trial.id, "label": trial.label, "epoch": trial.epochs, "reason": _why(trial)}
            for trial in trials
            if trial.status == FAILED
        ],
        "faults": dict(Counter(fault.cause for trial in trials for fault in trial.faults)),
        "larger": [
            {"trial": trial.id, "gpus": trial.gpus, "reason": fault.reason}
            for trial in trials
            for fault in trial.faults
            if fault.cause == GPU_MEMORY
        ],
        "epochs": {"done": progress.epochs_done, "at_most_left": left},
        "epochs_per_second": rate,
        "seconds_left": left / rate if rate else None,
        "device": device,
        "device_hours": {
            "spent": (state.gpu_s if device == GPU else per_trial * _spent(trials)) / 3600,
            "at_most_left": per_trial * left * epoch_s / 3600,
        },
        "option_epochs": [asdict(item) for item in option_epochs(state)],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """Format the status for a person."""
    text = [f"{found['study']}: {found['space']} on {found['task']}, {found['state']}"]
    if found["state"] == "not running":
        text[0] += f"; {found['resume']} goes on"
    elif found["cluster"]:
        text[0] += f", {found['cluster']}, session {found['sessions']}"
    text += ["", *_table(found["trials"])]
    for item in found["running"]:
        ago = f"{WAITS}, " if item["waits"] else ""
        ago += f"last heard of {duration(item['silent_s'])} ago"
        text.append(f"{item['trial']} epoch {item['epoch']}/{item['of']}, {ago}: {item['label']}")
    text.append("")
    plain = len({rung["bracket"] for rung in found["rungs"]}) == 1
    for rung in found["rungs"]:
        bars = ", ".join(f"{key} {100 * bar:.1f}" for key, bar in rung["to_go_on"].items())
        needs = f"to go on: {bars}" if bars else f"judges from {rung['judges_from']} on"
        of = "" if plain else f" of {rung['bracket']}"
        text.append(f"rung at epoch {rung['epoch']}{of}: {rung['size']} values, {needs}")
    for key, item in found["best"].items():
        if item is not None:
            text.append(f"best {key}: {100 * item['value']:.1f}, {item['trial']} {item['label']}")
    text.append(_pace(found))
    text.append(_cost_line(found))
    for path in dict.fromkeys(item["path"] for item in found["option_epochs"]):
        options = [item for item in found["option_epochs"] if item["path"] == path]
        parts = ", ".join(f"{item['option']} {item['fraction']:.0%}" for item in options)
        text.append(f"epochs by {path}: {parts} (equal: {options[0]['equal']:.0%})")
    if found["faults"]:
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(found["faults"].items()))
        text.append(f"trials that the machine ended, and that were tried again: {causes}")
    text += [
        f"{item['trial']} was given {item['gpus']:g} GPU after: {item['reason']}"
        for item in found["larger"]
    ]
    text += [
        f"FAILED {item['trial']} after epoch {item['epoch']}: {item['label']}: {item['reason']}"
        for item in found["failed"]
    ]
    return text


def _counts(state: State, stage: str) -> dict[str, int]:
    count = Counter(trial.status or RUNNING for trial in state.of_stage(stage))
    return {key: count[key] for key in (RUNNING, COMPLETED, STOPPED_EARLY, FAILED)}


def _running(trial: Trial, plan: Plan, now: float) -> dict[str, Any]:
    heard = max([trial.handed_out, *trial.report_times.values()])
    return {
        "trial": trial.id,
        "label": trial.label,
        "stage": trial.stage,
        "epoch": trial.epochs,
        "of": plan.epochs * trial.budget,
        "silent_s": max(0.0, now - heard),
        "waits": trial.waits,
    }


def _rung(
    bracket: str, epoch: int, values: list[tuple[str, dict[str, float]]], plan: Plan
) -> dict[str, Any]:
    """A rung; `to_go_on` is what the next trial must reach in one of the objectives."""
    found = bars([value for _, value in values], reduction_factor=plan.reduction_factor)
    return {
        "bracket": bracket,
        "epoch": epoch,
        "size": len(values),
        "judges_from": 2 * plan.reduction_factor,
        "to_go_on": {key: bar for key, bar in found.items() if math.isfinite(bar)},
    }


def _best(state: State, key: str) -> dict[str, Any] | None:
    trial = best(state, key)
    if trial is None:
        return None
    return {"trial": trial.id, "label": trial.label, "value": trial.last[key]}


def _why(trial: Trial) -> str:
    return trial.end.reason if trial.end else ""


def _epochs_per_second(state: State, now: float) -> float | None:
    """The rate over the last ten minutes of this session; None before its first report."""
    if not state.sessions:
        return None
    since = max(state.sessions[-1].time, now - RATE_WINDOW)
    count = sum(
        time >= since for trial in state.trials.values() for time in trial.report_times.values()
    )
    return count / max(1e-9, now - since) if count else None


def _cost(state: State) -> tuple[str, float, float]:
    """A trial's device, the amount of it, and the mean seconds of its epochs."""
    session = state.sessions[-1] if state.sessions else None
    gpus = session.gpus_per_trial if session else 0.0
    cpus = session.cpus_per_trial if session else 1.0
    trials = state.trials.values()
    count = sum(len(trial.reports) for trial in trials)
    mean = _spent(list(trials)) / count if count else 0.0
    return (GPU, gpus, mean) if gpus else (CPU, cpus, mean)


def _spent(trials: list[Trial]) -> float:
    """The seconds of all epochs."""
    reports = (report for trial in trials for report in trial.reports.values())
    return sum(report.get("time/epoch_s", 0.0) for report in reports)


def _table(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = (RUNNING, COMPLETED, STOPPED_EARLY, FAILED)
    rows = [f"{'stage':10}" + "".join(f"{column.replace('_', ' '):>15}" for column in columns)]
    for stage, count in counts.items():
        rows.append(f"{stage:10}" + "".join(f"{count[column] or '.':>15}" for column in columns))
    return rows


def _pace(found: Mapping[str, Any]) -> str:
    text = f"{found['epochs']['done']} epochs done"
    if found["epochs"]["at_most_left"]:
        text += f", at most {found['epochs']['at_most_left']} left"
    if found["epochs_per_second"]:
        text += f", {found['epochs_per_second']:.3g} epochs/s"
        text += f", at most {duration(found['seconds_left'])} left"
    return text


def _cost_line(found: Mapping[str, Any]) -> str:
    hours = found["device_hours"]
    text = f"{found['device']}-hours of training: {hours['spent']:.3g} spent"
    if hours["at_most_left"]:
        text += f", at most {hours['at_most_left']:.3g} left"
    return text
