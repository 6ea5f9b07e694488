"""The learning curves of a study as a table: what its ledger holds, for the simulator."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from study.core.errors import InputError
from study.core.files import write_bytes, write_text
from study.core.names import COMPLETED, EPOCH_SECONDS, FAILED, VAL
from study.core.yaml_text import as_yaml
from study.ledger.plan import Plan
from study.ledger.state import State, Trial
from study.simulation.table import (
    CONFIG,
    EPOCH,
    SECONDS,
    SEED,
    SUFFIXES,
    USUAL_SECONDS,
    TableProblem,
    space_beside,
)
from study.space.search_space import SearchSpace, load_space


def recorded(
    state: State, searched: SearchSpace | None = None
) -> tuple[pd.DataFrame, SearchSpace, int]:
    """The table of a study, its space, and how many trials are left out: those that a rung stopped
    and whose end is therefore not known, those whose config the space does not hold, and repeats.

    Confirmations are trainings of their config with other seeds. A trial that failed by its own
    fault is a curve that ends.

    searched: the space of the table, in place of the study's own.
    """
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    space = searched or replace(load_space(state.study.space), name=state.study.space_name)
    settings = space.settings.model_copy(update={"objectives": plan.objectives})
    space = replace(space, settings=settings)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    left_out = 0
    for trial in state.trials.values():
        same = f"{sorted((trial.params or {}).items())} {trial.seed}"
        if not _is_curve(trial) or space.point(trial.params or {}) is None or same in seen:
            left_out += 1
            continue
        seen.add(same)
        for epoch, report in sorted(trial.reports.items()):
            if any(key not in report for key in plan.objectives):
                break
            rows.append(
                {
                    **{CONFIG + path: value for path, value in (trial.params or {}).items()},
                    SEED: trial.seed,
                    EPOCH: epoch,
                    SECONDS: report.get(EPOCH_SECONDS, USUAL_SECONDS),
                    **{key: value for key, value in report.items() if _is_kept(key, plan)},
                }
            )
    return pd.DataFrame(rows), space, left_out


def problem_of(name: str, state: State) -> TableProblem:
    """The problem of a study's own curves."""
    frame, space, _ = recorded(state)
    if frame.empty:
        raise InputError(f"no trial of {name} was trained to its end", key="PROBLEM")
    return TableProblem(name, frame, space)


def write_table(frame: pd.DataFrame, space: SearchSpace, path: Path) -> None:
    """Write a table, and the search space beside it."""
    if path.suffix not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise InputError(f"a table's name ends in {known}, got {path.name}", key="--record")
    if path.suffix == ".parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_bytes(path, buffer.getvalue())
    else:
        write_text(path, frame.to_csv(index=False))
    study = {**space.data.get("study", {}), "objectives": list(space.settings.objectives)}
    write_text(space_beside(path), as_yaml({**space.data, "study": study}))


def _is_curve(trial: Trial) -> bool:
    if trial.end is None or trial.params is None or trial.on_target or trial.budget != 1:
        return False
    failed = trial.status == FAILED and not trial.end.by_machine
    return bool(trial.reports) and (trial.status == COMPLETED or failed)


def _is_kept(key: str, plan: Plan) -> bool:
    return key in plan.objectives or key in (f"{VAL}/miou", f"{VAL}/macc")
