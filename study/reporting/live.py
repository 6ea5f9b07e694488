"""The display of a running study: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study.core.errors import printable
from study.core.names import BASELINE, COMPLETED, CONFIRM, FAILED, REFERENCE, SEARCH, STOPPED_EARLY
from study.ledger.plan import Plan
from study.ledger.records import (
    EndRecord,
    FaultRecord,
    Record,
    ReportRecord,
    SeedsRecord,
    SelectRecord,
    TrialRecord,
    WaitRecord,
)
from study.ledger.state import State, Trial
from study.scheduler.stages import (
    ablations,
    confirmations,
    longer_confirmations,
    selection_in_force,
    settled,
)

STAGES = (BASELINE, REFERENCE, SEARCH, CONFIRM)
REFRESH_PER_SECOND = 2
PLAIN: dict[str, Any] = dict(highlight=False, soft_wrap=True, markup=False, emoji=False)
WAITS = "waits for a machine that can hold it"


def duration(seconds: float) -> str:
    """Format seconds as 45 s, 3 min 05 s or 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """The progress of a study. Remaining epochs are counted as if no trial were stopped."""

    def __init__(
        self, plan: Plan, state: State, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = plan
        self._state = state
        self._clock = clock
        self._started = clock()
        self._epochs_at_start = self.epochs_done
        self._rated_since: tuple[float, int] | None = None

    @property
    def epochs_done(self) -> int:
        """The number of epoch reports so far."""
        return self._state.num_epochs

    @property
    def epochs_left(self) -> int:
        """The largest number of epoch reports still to come."""
        plan, state = self._plan, self._state
        running = sum(plan.epochs * trial.budget - trial.epochs for trial in state.unfinished())
        known, done = confirmations(plan, state), settled(state)
        added = plan.added_trials if state.seeds is None else 0
        if selection_in_force(state) is None:
            confirm = plan.confirm_trials
            search = plan.num_trials - state.count(SEARCH, REFERENCE)
        else:
            confirm = len(known)
            search = 0
        baseline = len(plan.baselines) - state.count(BASELINE)
        to_come = baseline + search + confirm + added - len(known & done)
        chosen, parts = longer_confirmations(plan, state), ablations(plan, state)
        longer, ablated = plan.longer_epochs, plan.ablation_trials * plan.epochs
        if chosen is not None:
            longer = plan.epochs * sum(one.budget for one in chosen if one not in done)
        if parts is not None:
            ablated = plan.epochs * sum(one not in done for one in parts)
        return max(0, to_come) * plan.epochs + longer + ablated + running

    @property
    def elapsed(self) -> float:
        """Seconds of this session."""
        return self._clock() - self._started

    @property
    def seconds_left(self) -> float | None:
        """The remaining seconds at the rate since the first call after the session's first
        epoch, because starting up takes time once; None before the second."""
        now, done = self._clock(), self.epochs_done
        if self._rated_since is None:
            if done > self._epochs_at_start:
                self._rated_since = now, done
            return None
        since, already = self._rated_since
        return (now - since) / (done - already) * self.epochs_left if done > already else None


def _literal(text: str) -> Text:
    return Text(printable(text))


def best(state: State, key: str) -> Trial | None:
    """The trial with the highest last value of a metric so far, confirmations excluded."""
    rated = [
        trial
        for trial in state.of_stage(BASELINE, REFERENCE, SEARCH)
        if trial.last.get(key) == trial.last.get(key, float("nan"))
    ]
    return max(rated, key=lambda trial: trial.last[key], default=None)


class Display:
    """A listener of the ledger; use it as a context manager around the run."""

    def __init__(self, plan: Plan, state: State, file: TextIO | None = None) -> None:
        self._plan = plan
        self._state = state
        self._progress = Progress(plan, state)
        self._console = Console(file=file or sys.stdout, **PLAIN)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self.panel,
                refresh_per_second=REFRESH_PER_SECOND,
                transient=True,
            )

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line, above the panel if there is one."""
        self._console.print(printable(line))

    def on(self, record: Record) -> None:
        """Take in one more ledger line."""
        match record:
            case TrialRecord(attempt=attempt) if attempt:
                epoch = self._state.trials[record.trial].epochs
                self.say(f"{record.trial} goes on after epoch {epoch}: {record.label}")
            case FaultRecord():
                self.say(f"{record.trial} was lost after epoch {record.epochs}: {record.reason}")
            case WaitRecord():
                self.say(f"{record.trial} {WAITS}")
            case EndRecord():
                self.say(self._end_line(record))
            case SelectRecord():
                named = (record.reference, record.runner_up, *record.confirmed)
                chosen = ", ".join(name for name in named if name)
                self.say(f"search over; confirming with fresh seeds: {chosen or 'nothing'}")
            case SeedsRecord():
                self.say(f"the confirmed configs are trained on {record.seeds} seeds in all")
            case ReportRecord() if self._live is None and self._due():
                self.say(self._status_line())

    _next_status = 0.0

    def _due(self) -> bool:
        now = time.monotonic()
        due = now >= self._next_status
        if due:
            self._next_status = now + 30.0
        return due

    def _status_line(self) -> str:
        left = self._progress.seconds_left
        progress = self._progress
        done = progress.epochs_done
        text = f"{done} epoch{'s' * (done != 1)} done, at most {progress.epochs_left} left"
        return text if left is None else f"{text} (about {duration(left)})"

    def _end_line(self, record: EndRecord) -> str:
        trial = self._state.trials[record.trial]
        values = ", ".join(
            f"{key} {100 * trial.last[key]:.1f}"
            for key in self._plan.objectives
            if key in trial.last
        )
        seed = f" seed {trial.seed}" if trial.stage == CONFIRM else ""
        head = f"{trial.id} {trial.stage}{seed}: {trial.label}"
        why = {COMPLETED: "completed", STOPPED_EARLY: "stopped", FAILED: "FAILED"}[record.status]
        reason = "" if record.status == COMPLETED else f" ({record.reason})"
        return f"{head} | {why} at epoch {record.epochs}{reason}{' | ' + values if values else ''}"

    def panel(self) -> RenderableType:
        """The panel: trials by state, running trials, the best so far, epochs done and time
        left."""
        gap = Text("")
        return Group(self._counts(), gap, self._running(), gap, self._best(), gap, self._bar())

    def _counts(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("stage", "running", "completed", "stopped", "failed"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for stage in STAGES:
            count = Counter(t.status or "running" for t in self._state.of_stage(stage))
            cells = [count["running"], count[COMPLETED], count[STOPPED_EARLY], count[FAILED]]
            table.add_row(stage, *(str(cell) if cell else "." for cell in cells))
        return table

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for trial in list(self._state.trials.values()):
            if trial.end is None:
                progress = f"epoch {trial.epochs}/{self._plan.epochs * trial.budget}"
                if trial.waits:
                    progress += f", {WAITS}"
                table.add_row(Text(trial.id, style="cyan"), progress, _literal(trial.label))
        return table

    def _best(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for key in self._plan.objectives:
            trial = best(self._state, key)
            if trial is not None:
                value = f"{100 * trial.last[key]:.1f}"
                head, label = _literal(f"best {key}"), _literal(trial.label)
                table.add_row(head, Text(value, style="bold"), trial.id, label)
        return table

    def _bar(self) -> Table:
        done, left = self._progress.epochs_done, self._progress.epochs_left
        seconds = self._progress.seconds_left
        text = f"{done} epochs, at most {left} left; {duration(self._progress.elapsed)}"
        if seconds is not None:
            text += f", at most {duration(seconds)} left"
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row(ProgressBar(total=max(1, done + left), completed=done, width=40), text)
        return table
