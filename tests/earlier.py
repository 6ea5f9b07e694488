"""What commit de798f6 wrote, below fixtures/de798f6, and how to hold today's code to it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.ledger.state import State, Trial
from study.training.environment import environment

FOLDER = Path(__file__).parent / "fixtures" / "de798f6"
CLOSE = 1e-3  # how near trained numbers come on another CPU or with another torch


def copied(name: str, to: Path) -> Path:
    """A fixture's folder, copied below `to`: whoever works on a study writes there."""
    return Path(shutil.copytree(FOLDER / name, to / name))


def recorded(name: str) -> dict[str, Any]:
    """The facts that the earlier code wrote down of a ledger (see fixtures/de798f6/make)."""
    found = json.loads((FOLDER / name / "facts.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    del found["optuna"]
    return found


def is_like(there: Mapping[str, Any]) -> bool:
    """Whether this machine comes to the numbers of an earlier one to the last digit: it has the
    same CPU, and torch and numpy of the same versions."""
    here = environment(device="cpu")
    keys = ("torch", "numpy")
    return here["device_name"] == there["device_name"] and all(
        here["versions"].get(key) == there["versions"][key] for key in keys
    )


def timeless(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that a second run must have again."""
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


def facts(state: State) -> dict[str, Any]:
    """What a state says, in the words of the earlier code, as JSON that is equal to itself."""
    selection = state.selection
    found = {
        "trials": [_trial(trial) for trial in state.trials.values()],
        "brackets": [[*key, [name for name, _ in found]] for key, found in state.brackets.items()],
        "selection": selection
        and [selection.confirmed, selection.reference, selection.default_ce, selection.searched],
        "selection_holds": state.selection_holds,
        "unfinished": [trial.id for trial in state.unfinished()],
        "sessions": [session.number for session in state.sessions],
        "keeps_checkpoints": state.keeps_checkpoints,
        "num_epochs": state.num_epochs,
        "gpu_s": state.gpu_s,
        "finished": state.finished,
    }
    plain = json.loads(json.dumps(_plain(found)))
    assert isinstance(plain, dict)
    return plain


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "id": trial.id,
        "number": trial.number,
        "stage": trial.stage,
        "family": trial.family,
        "params": trial.params,
        "seed": trial.seed,
        "source": trial.source,
        "attempt": trial.attempt,
        "epochs": trial.epochs,
        "status": trial.status,
        "reason": trial.end.reason if trial.end else None,
        "by_machine": trial.end.by_machine if trial.end else None,
        "waits": trial.waits,
        "gpus": trial.gpus,
        "gpu_s": trial.gpu_s,
        "faults": [[fault.attempt, fault.epochs, fault.cause] for fault in trial.faults],
        "rungs": {str(epoch): values for epoch, values in trial.rungs.items()},
        "last": trial.last,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
