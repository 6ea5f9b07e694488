"""The status of a study, as lines for a person and as a mapping for a script."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from study.analysis.answer import Leaders, leaders
from study.analysis.option_epochs import option_epochs
from study.core.names import COMPLETED, FAILED, STOPPED_EARLY, TEACHER
from study.ledger.plan import Plan
from study.ledger.state import State, Trial
from study.reporting.live import (
    WAITS,
    Progress,
    best,
    best_rule,
    duration,
    in_epochs,
    stages_of,
)
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
        included, times its GPU fraction then; on CPUs its epochs times its CPUs. `epochs` and their
        rate are of the study's own task, those in `target` of the task that confirmations train,
        None where it is the same. What hangs on an epoch of the target is None until one is timed.
    """
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    progress, ahead = Progress(plan, state), leaders(state)
    trials = list(state.trials.values())
    rates = _epochs_per_second(state, now) if driven else None
    done, left = progress.done, (0, 0) if state.finished else progress.left
    rate = in_epochs(state, *rates) if rates else math.nan
    seconds_left = in_epochs(state, *left) / rate
    per_trial = _device(state)[1]
    device, spent = device_hours(state)
    device_s = per_trial * sum(
        count * state.work[bool(kind)].epoch_s for kind, count in enumerate(left) if count
    )
    return {
        "study": state.study.name,
        "space": state.study.space_name,
        "task": state.study.task_name,
        "target": {
            "task": state.study.confirm_task_name,
            "epochs": {"done": done[1], "at_most_left": left[1]},
            "epochs_per_second": rates[1] if rates else None,
        }
        if plan.has_target
        else None,
        "state": "finished" if state.finished else RUNNING if driven else "not running",
        "resume": resume or f"python -m study.run --resume {state.study.name}",
        "cluster": state.sessions[-1].cluster if state.sessions else None,
        "sessions": len(state.sessions),
        "trials": {stage: _counts(state, stage) for stage in stages_of(state)},
        "running": [_running(trial, plan, now) for trial in trials if trial.end is None],
        "rungs": [_rung(*rung, values, plan) for rung, values in state.brackets.items()],
        "best": {key: _best(state, ahead, key) for key in plan.objectives},
        "best_rule": best_rule(ahead),
        "confirmed": ahead.confirmed,
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
        "epochs": {"done": done[0], "at_most_left": left[0]},
        "epochs_per_second": rates[0] if rates else None,
        "seconds_left": seconds_left if math.isfinite(seconds_left) else None,
        "device": device,
        "device_hours": {
            "spent": spent,
            "at_most_left": device_s / 3600 if math.isfinite(device_s) else None,
        },
        "option_epochs": [asdict(item) for item in option_epochs(state)],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """Format the status for a person."""
    on = found["task"]
    if found["target"]:
        on += f", confirmed on {found['target']['task']}"
    text = [f"{found['study']}: {found['space']} on {on}, {found['state']}"]
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
            on = " of the proxy" if found["target"] and not found["confirmed"] else ""
            value = f"{100 * item['value']:.1f}"
            text.append(f"best {key}{on}: {value}, {item['trial']} {item['label']}")
    text.append(found["best_rule"])
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
        "of": plan.epochs_of(trial.stage, trial.budget, trial.label),
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


def _best(state: State, ahead: Leaders, key: str) -> dict[str, Any] | None:
    found = best(state, ahead, key)
    return None if found is None else asdict(found)


def _why(trial: Trial) -> str:
    return trial.end.reason if trial.end else ""


def _epochs_per_second(state: State, now: float) -> tuple[float, float] | None:
    """The rates over the last ten minutes of this session, of the study's own task and of its
    target; None before its first report."""
    if not state.sessions:
        return None
    since = max(state.sessions[-1].time, now - RATE_WINDOW)
    counts = [0, 0]
    for trial in (one for one in state.trials.values() if one.stage != TEACHER):
        counts[trial.on_target] += sum(time >= since for time in trial.report_times.values())
    seconds = max(1e-9, now - since)
    return (counts[0] / seconds, counts[1] / seconds) if any(counts) else None


def device_hours(state: State) -> tuple[str, float]:
    """The device that trials train on, and its hours of training so far."""
    device, per_trial = _device(state)
    spent_s = per_trial * sum(work.seconds for work in state.work.values())
    return device, (state.gpu_s if device == GPU else spent_s) / 3600


def _device(state: State) -> tuple[str, float]:
    """A trial's device, and the amount of it."""
    session = state.sessions[-1] if state.sessions else None
    gpus = session.gpus_per_trial if session else 0.0
    cpus = session.cpus_per_trial if session else 1.0
    return (GPU, gpus) if gpus else (CPU, cpus)


def _table(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    columns = (RUNNING, COMPLETED, STOPPED_EARLY, FAILED)
    rows = [f"{'stage':10}" + "".join(f"{column.replace('_', ' '):>15}" for column in columns)]
    for stage, count in counts.items():
        rows.append(f"{stage:10}" + "".join(f"{count[column] or '.':>15}" for column in columns))
    return rows


def _pace(found: Mapping[str, Any]) -> str:
    parts = [_paced("epochs", found)]
    if found["target"]:
        parts = [_paced("epochs of the proxy", found), _paced("of the target", found["target"])]
    text = "; ".join(parts)
    if found["seconds_left"] is not None:
        text += f", at most {duration(found['seconds_left'])} left"
    return text


def _paced(what: str, found: Mapping[str, Any]) -> str:
    text = f"{found['epochs']['done']} {what} done"
    if found["epochs"]["at_most_left"]:
        text += f", at most {found['epochs']['at_most_left']} left"
    if found["epochs_per_second"]:
        text += f", {found['epochs_per_second']:.3g} epochs/s"
    return text


def _cost_line(found: Mapping[str, Any]) -> str:
    hours = found["device_hours"]
    text = f"{found['device']}-hours of training: {hours['spent']:.3g} spent"
    if hours["at_most_left"]:
        text += f", at most {hours['at_most_left']:.3g} left"
    return text
