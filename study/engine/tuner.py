"""Runs all stages of a study in one Tuner."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from study.config.own_training import FunctionTrial
from study.core.console import CLUSTER_GONE, EXIT_OUTPUT_ERROR
from study.engine.cluster import Resources, nodes_with
from study.engine.heartbeat import LOOK_TIMEOUT, ClusterLost, Heartbeat
from study.engine.messages import ORDER, TrialOrder, WorkerSettings
from study.engine.nodes import NodeCheck
from study.engine.ray_internals import (
    TUNE_LOGGER,
    not_on,
    own_node_is_alive,
    tell_of_busy_processes,
)
from study.engine.tune_adapter import Faults, TuneScheduler, TuneSearcher, order_of
from study.scheduler.study_scheduler import StudyScheduler
from study.scheduler.watchdog import LEAST_SECONDS, Watchdog
from study.storage.checkpoints import CheckpointCleaner

MOST_TRIALS = 10**6  # that Tune lets wait; the scheduler counts them
BEAT_SECONDS, BEATS = 10.0, 5  # at most so far apart; at least so many within a limit
GO_ON = "the study ends here; --resume goes on with it"
SHOW_CURSOR = "\x1b[?25h"  # the live panel hides it


def _work(order: TrialOrder) -> None:
    from study.engine import worker

    worker.run(order)


def _lacks(order: TrialOrder) -> str:
    from study.engine import worker

    return worker.lacks(order)


def _end(reason: str) -> None:
    """Say why and end the process. The ledger holds every line already; a resumed study sends the
    tracking server what it lacks."""
    if sys.stdout.isatty():
        print(SHOW_CURSOR, end="", flush=True)
    print(f"error: {reason}: {GO_ON}", file=sys.stderr, flush=True)
    os._exit(EXIT_OUTPUT_ERROR)


def _own_id(trial: TuneTrial) -> str:
    return order_of(trial).trial


def _own_folder(trial: TuneTrial) -> str:
    order = order_of(trial)
    return f"{order.trial}-a{order.attempt}"


class _Room:
    """Keeps the slots of a study in step with the nodes of its cluster.

    Args:
        scheduler: of the study.
        resources: what a trial gets.
        nodes: tells which nodes are fit for trials.
        say: called with a line for each change.
    """

    def __init__(
        self,
        scheduler: StudyScheduler,
        resources: Resources,
        nodes: NodeCheck,
        say: Callable[[str], None],
    ) -> None:
        self._scheduler = scheduler
        self._resources = resources
        self._nodes = nodes
        self._say = say
        self._names = {node.id: node.name for node in (nodes.fit or {}).values()}

    def follow(self) -> None:
        """Take in which nodes have come and gone since the last call."""
        fit = self._nodes.fit
        if fit is None or fit.keys() == self._names.keys():
            return
        names = {node.id: node.name for node in fit.values()}
        joined = [f"node {names[node]} has joined" for node in names.keys() - self._names.keys()]
        left = [f"node {self._names[node]} has left" for node in self._names.keys() - names.keys()]
        self._names = names
        slots = self._resources.slots_on(nodes_with([*fit.values()]))
        change = "; ".join(sorted([*joined, *left]))
        self._scheduler.follow(len(fit), slots, change)
        self._say(f"{change}: {slots} trial{'s' * (slots != 1)} at once")


def run_trials(
    scheduler: StudyScheduler,
    resources: Resources,
    folder: Path,
    *,
    prefix: str | None = None,
    keep_weights: bool = True,
    nodes: NodeCheck | None = None,
    trial_timeout: float | None = None,
    gpus_only: bool = False,
    say: Callable[[str], None] = print,
    work: Callable[[TrialOrder], None] = _work,
) -> None:
    """Train whatever the scheduler hands out, until nothing is left or Ctrl-C.

    Args:
        scheduler: says what to train next, and takes the reports.
        resources: what a trial gets, and how many run at once.
        folder: of the study.
        prefix: the study's address in a bucket, where checkpoints are then kept.
        keep_weights: whether the weights of confirmations are kept for the exports.
        nodes: tells which nodes are fit for trials; default: all are.
        trial_timeout: seconds without a sign of life after which a trial is ended; by its pace,
            unless given.
        gpus_only: whether a trial with a GPU must not train on a CPU where torch finds none.
        say: called with each line that a person should read.
        work: what a worker process does with an order; a benchmark gives a shorter one.

    Raises:
        OSError: where the cluster is gone, or the ledger could not be written.

    Nothing reads Tune's own files: each trial keeps its own checkpoints. Every session gives Tune a
    fresh folder, so that it does not take up an earlier one, of a name that nobody can foresee:
    Ray unpickles files there, and a study that was copied could bring some along.
    """
    settings = WorkerSettings(
        folder=str(folder),
        prefix=prefix,
        num_threads=resources.num_threads,
        rungs=scheduler.plan.rungs,
        keep_last=scheduler.state.keeps_checkpoints,
        keep_weights=keep_weights,
        probe=nodes.probe if nodes else None,
        gpus_only=gpus_only,
        ranks=resources.ranks,
        beat_s=min(BEAT_SECONDS, (trial_timeout or LEAST_SECONDS) / BEATS),
    )
    nodes = nodes or NodeCheck()
    faults: Faults = {}
    heartbeat = Heartbeat(partial(own_node_is_alive, LOOK_TIMEOUT), _end)
    watchdog = Watchdog(scheduler.state, trial_timeout)
    cleaner = CheckpointCleaner(folder, prefix, scheduler.checkpoints_needed)

    find, here = nodes.find, nodes.here

    def trainable(config: dict[str, Any]) -> None:
        """Runs from its pickled code, also where this package is another."""
        order = config[ORDER]
        is_fit = order.fit is None or ray.get_runtime_context().get_node_id() in order.fit
        if not is_fit and (find() != here or _lacks(order)):
            os._exit(1)  # the driver finds out why
        work(order)

    room = _Room(scheduler, resources, nodes, say)

    def look() -> None:
        heartbeat.check()
        for line in nodes.news():
            say(line)
        room.follow()

    tell_of_busy_processes()
    logging.getLogger(TUNE_LOGGER).setLevel(logging.CRITICAL)  # the ledger says what failed

    def needs(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        each = {"CPU": resources.cpus_per_trial, "GPU": config[ORDER].gpus}
        bundle = {key: count for key, count in each.items() if count}
        return tune.PlacementGroupFactory([bundle], **not_on(config[ORDER].unfit))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner = tune.Tuner(
            tune.with_resources(trainable, needs),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(scheduler, settings, faults, nodes),
                scheduler=TuneScheduler(
                    scheduler, folder, faults, cleaner, say, look, watchdog, nodes
                ),
                num_samples=-1,
                max_concurrent_trials=MOST_TRIALS,
                # a function of the user's own is to find nothing of an earlier trial
                reuse_actors=not isinstance(getattr(scheduler.task, "trial", None), FunctionTrial),
                trial_name_creator=_own_id,
                trial_dirname_creator=_own_folder,
            ),
            run_config=tune.RunConfig(
                name=f"session{len(scheduler.state.sessions):02d}-{secrets.token_hex(8)}",
                storage_path=str(folder / "ray"),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),  # the scheduler tries again
            ),
        )
        try:
            with heartbeat:
                tuner.fit()
        except ClusterLost as gone:
            raise OSError(CLUSTER_GONE, f"{gone}: {GO_ON}") from None
        except Exception as error:
            if scheduler.ledger.failure is None:
                raise
            raise scheduler.ledger.failure from error  # Tune has made a text of it
        finally:
            cleaner.close()
