"""Runs the training of a trial, of whichever kind its task is."""

from __future__ import annotations

from study.config.own_training import FunctionTrial, OwnTrainingTask
from study.trials.context import TrialContext


def run_trial(context: TrialContext) -> None:
    """Train the trial to its end, or until the study ends it."""
    task = context.config.task
    if not isinstance(task, OwnTrainingTask):
        from study.trials.builtin import train_task

        train_task(context, task)
    elif isinstance(task.trial, FunctionTrial):
        from study.trials.function import train_function

        train_function(context, task.trial)
    else:
        from study.trials.command import train_command

        train_command(context, task.trial)
