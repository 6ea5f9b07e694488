"""The display of a running study: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.live_render import LiveRender
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from study.analysis.answer import Confirmed, Leaders, ended_line, leaders
from study.analysis.classes import rarest
from study.analysis.rules import rules_of
from study.analysis.selection import MIOU_TOLERANCE, ranked, value
from study.core.errors import printable
from study.core.names import (
    BASELINE,
    COMPLETED,
    CONFIRM,
    FAILED,
    REFERENCE,
    SEARCH,
    STOPPED_EARLY,
    TEACHER,
)
from study.ledger.plan import Plan
from study.ledger.records import (
    STAGES,
    EndRecord,
    FaultRecord,
    Record,
    ReportRecord,
    SearchEndRecord,
    SeedsRecord,
    SelectRecord,
    TrialRecord,
    WaitRecord,
)
from study.ledger.state import State
from study.reporting.plan_text import epochs_text
from study.reporting.tables import percent
from study.scheduler.stages import (
    ablations,
    confirmations,
    longer_confirmations,
    selection_in_force,
    settled,
)

REFRESH_PER_SECOND = 2
PLAIN: dict[str, Any] = dict(highlight=False, soft_wrap=True, markup=False, emoji=False)
WAITS = "waits for a machine that can hold it"
RAREST = 3


def duration(seconds: float) -> str:
    """Format seconds as 45 s, 3 min 05 s or 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def stages_of(state: State) -> tuple[str, ...]:
    """The stages of a study; teachers are one where it has some."""
    return STAGES if state.of_stage(TEACHER) else tuple(one for one in STAGES if one != TEACHER)


def in_epochs(state: State, epochs: float, of_target: float) -> float:
    """Epochs of a study's own task that take as long as these, some of which are of its target; NaN
    where there are such and not both tasks are timed yet."""
    if not of_target:
        return epochs
    return epochs + of_target * state.work[True].epoch_s / state.work[False].epoch_s


class Progress:
    """The progress of a study. Remaining epochs are counted as if no trial were stopped."""

    def __init__(
        self, plan: Plan, state: State, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan = plan
        self._state = state
        self._clock = clock
        self._started = clock()
        self._epochs_at_start = state.num_epochs
        self._rated_since: tuple[float, int, int] | None = None

    @property
    def done(self) -> tuple[int, int]:
        """The number of epoch reports so far, of the study's own task and of its target."""
        return self._state.work[False].epochs, self._state.work[True].epochs

    @property
    def left(self) -> tuple[int, int]:
        """The largest number of epoch reports still to come, of the study's own task and of its
        target; without one the confirmation is of the own."""
        plan, state = self._plan, self._state
        running = [0, 0]
        for trial in state.unfinished():
            if trial.stage != TEACHER:
                left = plan.epochs_of(trial.stage, trial.budget) - trial.epochs
                running[trial.on_target] += left
        search = len(plan.baselines) - state.count(BASELINE)
        if selection_in_force(state) is None:
            planned = plan.search_size(state.search_ended_after)
            search += planned - state.count(SEARCH, REFERENCE)
        own = max(0, search) * plan.epochs + running[False]
        if plan.has_target:
            return own, self._confirmation_left() + running[True]
        return own + self._confirmation_left(), 0

    @property
    def _of_teachers(self) -> str:
        """The epochs of teachers that are still to come, in words; empty once there are none."""
        left = sum(self._plan.teacher_epochs)
        for trial in self._state.of_stage(TEACHER):
            whole = self._plan.epochs_of(TEACHER, label=trial.label)
            left -= trial.epochs if trial.end is None else whole
        return f", and {left} of teachers" if left > 0 else ""

    def _confirmation_left(self) -> int:
        """The largest number of epochs of confirmations that are not begun."""
        plan, state = self._plan, self._state
        known, done = confirmations(plan, state), settled(state)
        added = plan.added_trials if state.seeds is None else 0
        ordinary = plan.confirm_trials if selection_in_force(state) is None else len(known)
        epochs = max(0, ordinary + added - len(known & done)) * plan.epochs_of(CONFIRM)
        chosen, parts = longer_confirmations(plan, state), ablations(plan, state)
        longer, ablated = plan.longer_epochs, plan.ablation_epochs
        if chosen is not None:
            longer = sum(plan.epochs_of(CONFIRM, one.budget) for one in chosen if one not in done)
        if parts is not None:
            ablated = plan.epochs_of(CONFIRM) * sum(one not in done for one in parts)
        return epochs + longer + ablated

    @property
    def text(self) -> str:
        """The epochs done and still to come, in words."""
        plan, (left, of_target) = self._plan, self.left
        to_come = f"{left} and {of_target}" if plan.has_target else str(left)
        return f"{epochs_text(plan, *self.done)} done, at most {to_come} left{self._of_teachers}"

    @property
    def elapsed(self) -> float:
        """Seconds of this session."""
        return self._clock() - self._started

    @property
    def seconds_left(self) -> float | None:
        """The remaining seconds at the rate since the first call after the session's first
        epoch, because starting up takes time once; None before the second, and while an epoch of
        the target is not timed."""
        now, (done, of_target) = self._clock(), self.done
        if self._rated_since is None:
            if self._state.num_epochs > self._epochs_at_start:
                self._rated_since = now, done, of_target
            return None
        since, *already = self._rated_since
        worked = in_epochs(self._state, done - already[0], of_target - already[1])
        left = in_epochs(self._state, *self.left)
        return (now - since) / worked * left if worked > 0 and math.isfinite(left) else None


def _literal(text: str) -> Text:
    return Text(printable(text))


@dataclass(frozen=True)
class Best:
    """Who is best so far by an objective: the trial that its config comes from, and its value."""

    trial: str
    label: str
    value: float


def best(state: State, ahead: Leaders, key: str) -> Best | None:
    """Who is best by an objective: by the two that the answer ranks by those who are ahead, by
    any other the highest at full budget."""
    rule = rules_of(state)[0]
    if key in (rule.val_miou, rule.val_macc):
        found = ahead.miou if key == rule.val_miou else ahead.macc
    else:
        found = next(iter(ranked(state.completed(BASELINE, REFERENCE, SEARCH), key)), None)
    if isinstance(found, Confirmed):
        return Best(found.source, found.label, found.mean(key))
    return None if found is None else Best(found.id, found.label, value(found, key))


def best_rule(ahead: Leaders) -> str:
    """What "best" means, in words."""
    if ahead.miou is None:
        return "best: nobody yet, as no trial has reached the full budget"
    how = "mean over fresh seeds" if ahead.confirmed else "of one seed, at full budget"
    then = "" if ahead.confirmed else "; fresh seeds will decide"
    return (
        f"best: highest on val, {how}; by mean accuracy only where mIoU is at most "
        f"{100 * MIOU_TOLERANCE:g} points below that of the best cross entropy{then}"
    )


def rare_line(state: State, ahead: Leaders) -> str:
    """The rarest classes, and what the config ahead makes of them; empty before there is one."""
    classes = ", ".join(
        f"{row.name} {percent(row.reference.iou, 1)} -> {percent(row.winner.iou, 1)}"
        for row in rarest(state, ahead, RAREST)
        if row.reference is not None and row.winner is not None
    )
    if not classes:
        return ""
    return f"rarest classes, IoU on val, best cross entropy -> best by mIoU: {classes}"


class _Rewrapped(LiveRender):
    """What `Live` draws and erases. A terminal that becomes narrower wraps the rows that are drawn
    already, so that more of them are to be erased than were written."""

    def __init__(self, console: Console) -> None:
        super().__init__("")
        self._console = console
        self._widths: list[int] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = list(super().__rich_console__(console, options))
        segments = [part for part in drawn if isinstance(part, Segment)]
        self._widths = [Segment.get_line_length(row) for row in Segment.split_lines(segments)]
        yield from drawn

    def position_cursor(self) -> Control:
        """Go to the first row, erasing all."""
        self._count_again()
        return super().position_cursor()

    def restore_cursor(self) -> Control:
        """The same from the row below the last."""
        self._count_again()
        return super().restore_cursor()

    def _count_again(self) -> None:
        if self._shape is not None:
            width = self._console.width
            rows = sum(max(1, math.ceil(drawn / width)) for drawn in self._widths)
            self._shape = width, rows


class Display:
    """A listener of the ledger; use it as a context manager around the run."""

    def __init__(self, plan: Plan, state: State, file: TextIO | None = None) -> None:
        self._plan = plan
        self._state = state
        self._progress = Progress(plan, state)
        self._ahead, self._is_behind = leaders(state), False
        self._console = Console(file=file or sys.stdout, **PLAIN)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self.panel,
                refresh_per_second=REFRESH_PER_SECOND,
                transient=True,
            )
            self._live._live_render = _Rewrapped(self._console)  # rich has no way to give one

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line, above the panel if there is one."""
        self._console.print(printable(line))

    def on(self, record: Record) -> None:
        """Take in one more ledger line."""
        if isinstance(record, EndRecord):
            self._is_behind = True
            if self._live is not None:  # the panel is drawn by another thread
                self._look_ahead()
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
            case SearchEndRecord():
                self.say(
                    f"{ended_line(self._plan, record)}; of the search only trials that tune "
                    "cross entropy are left"
                )
            case SelectRecord():
                named = (record.reference, record.runner_up, *record.confirmed)
                chosen = ", ".join(name for name in named if name)
                self.say(f"search over; confirming with fresh seeds: {chosen or 'nothing'}")
            case SeedsRecord():
                self.say(f"the confirmed configs are trained on {record.seeds} seeds in all")
            case ReportRecord() if self._live is None and self._due():
                self.say(self._status_line())

    def _look_ahead(self) -> None:
        if self._is_behind:
            self._ahead = leaders(self._state)
            self._is_behind = False

    _next_status = 0.0

    def _due(self) -> bool:
        now = time.monotonic()
        due = now >= self._next_status
        if due:
            self._next_status = now + 30.0
        return due

    def _status_line(self) -> str:
        text, left = self._progress.text, self._progress.seconds_left
        return text if left is None else f"{text}; at most {duration(left)} to go"

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
        self._look_ahead()
        rare = rare_line(self._state, self._ahead)
        told = [_literal(line) for line in (best_rule(self._ahead), rare) if line]
        shown = Group(self._best(), *told)
        return Group(self._counts(), gap, self._running(), gap, shown, gap, self._bar())

    def _counts(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("stage", "running", "completed", "stopped", "failed"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for stage in stages_of(self._state):
            count = Counter(t.status or "running" for t in self._state.of_stage(stage))
            cells = [count["running"], count[COMPLETED], count[STOPPED_EARLY], count[FAILED]]
            table.add_row(stage, *(str(cell) if cell else "." for cell in cells))
        return table

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for trial in list(self._state.trials.values()):
            if trial.end is None:
                whole = self._plan.epochs_of(trial.stage, trial.budget, trial.label)
                progress = f"epoch {trial.epochs}/{whole}"
                if trial.waits:
                    progress += f", {WAITS}"
                table.add_row(Text(trial.id, style="cyan"), progress, _literal(trial.label))
        return table

    def _best(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for key in self._plan.objectives:
            found = best(self._state, self._ahead, key)
            if found is not None:
                on = " of the proxy" if self._plan.has_target and not self._ahead.confirmed else ""
                head, label = _literal(f"best {key}{on}"), _literal(found.label)
                table.add_row(head, Text(percent(found.value, 1), style="bold"), found.trial, label)
        return table

    def _bar(self) -> Table:
        done, left = (
            in_epochs(self._state, *count) for count in (self._progress.done, self._progress.left)
        )
        if not math.isfinite(done + left):  # the target is not timed: the bar shows the search
            done, left = self._progress.done[0], self._progress.left[0]
        seconds = self._progress.seconds_left
        text = f"{self._progress.text}; this session: {duration(self._progress.elapsed)} so far"
        if seconds is not None:
            text += f", at most {duration(seconds)} to go"
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row(ProgressBar(total=max(1, done + left), completed=done, width=40), text)
        return table
