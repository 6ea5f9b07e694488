"""A stand-in for Ray's calls below Tune: simulated trials, on a clock that runs with the driver.

The driver is as it is: Tune's controller, its managers of actors and of placement groups, and all
of `study`. Only what these managers ask of Ray is replaced: placement groups are there at once,
actors are objects of this process, and a call of an actor is ready once its seconds have passed.
`ray.wait` is called as well, on as many calls that never return, because Tune asks it at each event
about all trials.

The clock runs while the driver works: by the processor time of its thread, and by the wall time of
its syncs. Where the driver would wait, the clock jumps to what comes next. So other work on the
machine hardly changes what is measured, and an hour of a study takes minutes.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from study.engine.messages import MESSAGE, ORDER

NODE_IP = "10.0.0.1"
Train = Callable[[Any, int], tuple[float, Any]]
"""An epoch of an order, from 1: its seconds, and the message at its end."""


class DriverClock:
    """Seconds of a study whose driver is the thread that made this clock.

    busy: of them the driver worked. syncs, sync_s: of the disk, in that thread.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._skipped = self._excluded = self._seen = 0.0
        self.syncs, self.sync_s = 0, 0.0
        self._start = time.thread_time()

    @property
    def busy(self) -> float:
        return time.thread_time() - self._start - self._excluded + self.sync_s

    def __call__(self) -> float:
        if threading.get_ident() == self._thread:
            self._seen = self._skipped + self.busy
        return self._seen

    def skip(self, seconds: float) -> None:
        """Let time pass in which the driver waits."""
        self._skipped += max(0.0, seconds)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What the stand-in itself does takes no time."""
        start = time.thread_time()
        try:
            yield
        finally:
            self._excluded += time.thread_time() - start

    def synced(self, fsync: Callable[[int], None], file: int) -> None:
        """Sync a file, and count how long the driver waits for it."""
        if threading.get_ident() != self._thread:
            return fsync(file)
        start, worked = time.perf_counter(), time.thread_time()
        fsync(file)
        self.syncs += 1
        self.sync_s += time.perf_counter() - start
        self._excluded += time.thread_time() - worked


class _Ref:
    """What a call returns: `value()`, from a time of the clock on."""

    __slots__ = ("at", "value")

    def __init__(self, at: float, value: Callable[[], Any]) -> None:
        self.at = at
        self.value = value


class Farm:
    """Simulated trials, and all that Tune's managers ask of Ray about them.

    Args:
        clock: of the driver.
        train: makes the epochs.

    Attributes:
        trained: the epochs of all trials, each as (from, until) by the clock.
        never: calls of Ray that do not return, for `ray.wait` to look at.
    """

    def __init__(self, clock: DriverClock, train: Train) -> None:
        self.clock = clock
        self.train = train
        self.trained: list[tuple[float, float]] = []
        self.never: list[Any] = []

    def hold(self, calls: int) -> None:
        """Make so many calls of Ray that do not return."""
        import ray

        class Silent:
            async def wait(self) -> None:
                await asyncio.Event().wait()

        kind: Any = ray.remote(Silent)
        self._silent = kind.options(num_cpus=0, max_concurrency=calls).remote()
        self.never = [self._silent.wait.remote() for _ in range(calls)]

    def busy(self, start: float, end: float) -> float:
        """Seconds that trials have trained between two times, all together."""
        spans = ((max(start, since), min(end, until)) for since, until in self.trained)
        return sum(max(0.0, until - since) for since, until in spans)

    def later(self, seconds: float, value: Callable[[], Any]) -> _Ref:
        """What a call returns that takes so long."""
        return _Ref(self.clock() + seconds, value)

    def wait(
        self, refs: Sequence[_Ref], *, num_returns: int = 1, timeout: float
    ) -> tuple[list[_Ref], list[_Ref]]:
        """As `ray.wait`; in the place of waiting the clock jumps."""
        if refs and self.never:
            import ray

            ray.wait(self.never[: len(refs)], num_returns=1, timeout=0)
        with self.clock.stopped():
            next_one = min((ref.at for ref in refs), default=math.inf)
            self.clock.skip(min(next_one - self.clock(), timeout))
            now = self.clock()
            ready = [ref for ref in refs if ref.at <= now][:num_returns]
            return ready, [ref for ref in refs if ref not in ready] if num_returns > 1 else []

    @contextmanager
    def in_place_of_ray(self) -> Iterator[None]:
        """Let the Tune of this process use these actors, and the driver this clock."""
        from ray.air.execution._internal import actor_manager, event_manager
        from ray.air.execution.resources import placement_group
        from ray.air.execution.resources.request import ResourceRequest
        from ray.tune.execution import tune_controller

        from study.engine import tune_adapter
        from study.ledger import journal
        from study.reporting import live

        util = SimpleNamespace(remove_placement_group=lambda group: None)
        ray = SimpleNamespace(
            wait=self.wait,
            get=lambda ref: ref.value(),
            cancel=lambda ref: None,
            kill=lambda actor: None,
            is_initialized=lambda: True,
            actor=SimpleNamespace(ActorClass=_ActorClass, ActorHandle=object),
            util=util,
            ObjectRef=_Ref,
        )
        times = SimpleNamespace(**{**vars(time), "time": self.clock, "monotonic": self.clock})
        fsync = partial(self.clock.synced, os.fsync)
        system = SimpleNamespace(**{**vars(os), "fsync": fsync})

        def group(request: ResourceRequest) -> _Group:
            return _Group(self)

        def classes() -> SimpleNamespace:
            return SimpleNamespace(get=lambda trainable: _ActorClass(self))

        with ExitStack() as stack:
            for module, name, other in (
                (actor_manager, "ray", ray),
                (actor_manager, "time", times),
                (event_manager, "ray", ray),
                (placement_group, "ray", ray),
                (placement_group, "time", times),
                (placement_group, "remove_placement_group", util.remove_placement_group),
                (ResourceRequest, "to_placement_group", group),
                (tune_controller, "_ActorClassCache", classes),
                (tune_adapter, "time", times),
                (live, "time", times),
                (journal, "time", times),
                (journal, "os", system),
            ):
                stack.enter_context(mock.patch.object(module, name, other))
            yield


class _Group:
    """A placement group that is there at once."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def ready(self) -> _Ref:
        return self._farm.later(0.0, lambda: self)


class _ActorClass:
    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def options(self, **_: Any) -> _ActorClass:
        return self

    def remote(self, *, config: Mapping[str, Any], **_: Any) -> _Actor:
        return _Actor(self._farm, config)


class _Actor:
    """A trial's process; as Tune's actors, it trains one epoch after another."""

    def __init__(self, farm: Farm, config: Mapping[str, Any]) -> None:
        self._farm = farm
        self._begin(config)
        for name, call in {
            "__ray_ready__": lambda: farm.later(0.0, lambda: True),
            "__ray_terminate__": lambda: farm.later(0.0, lambda: None),
            "stop": lambda: farm.later(0.0, lambda: None),
            "reset": self._reset,
            "train": self._train,
            "get_auto_filled_metrics": lambda **_: {"pid": 1, "node_ip": NODE_IP},
        }.items():
            setattr(self, name, SimpleNamespace(remote=call))

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._order = config[ORDER]
        self._epoch = self._order.reported
        self._began = self._farm.clock()

    def _reset(self, config: Mapping[str, Any], **_: Any) -> _Ref:
        self._begin(config)
        return self._farm.later(0.0, lambda: True)

    def _train(self) -> _Ref:
        clock = self._farm.clock
        with clock.stopped():
            self._epoch += 1
            seconds, message = self._farm.train(self._order, self._epoch)
            now = clock()
            self._farm.trained.append((now, now + seconds))
            result = {
                MESSAGE: message,
                "timestamp": int(now + seconds),
                "checkpoint_dir_name": None,
                "done": False,
                "training_iteration": self._epoch,
                "date": "2026-01-01_00-00-00",
                "time_this_iter_s": seconds,
                "time_total_s": now + seconds - self._began,
                "pid": 1,
                "hostname": "node",
                "node_ip": NODE_IP,
                "config": {ORDER: self._order},
                "time_since_restore": now + seconds - self._began,
                "iterations_since_restore": self._epoch,
            }
            return self._farm.later(seconds, lambda: result)
