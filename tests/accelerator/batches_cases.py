"""Batches that are copied on a stream of their own, on the stand-in, where a copy on a stream does
not arrive before the stream that uses it has waited for its event."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from accelerator.stand_in import DEVICE, StandIn, There
from tiny_task import tiny_data

from study.config.task import Augment
from study.training.batches import AUGMENT, Batches, TrainOrder, stream

pytestmark = pytest.mark.usefixtures("one_thread")

AUGMENTS = {
    "flip": Augment(flip=0.5),
    "zoom": Augment(scale=(0.8, 1.25), jitter=0.1),
    "crop": Augment(flip=0.5, crop=(24, 24)),
}
Copies = list[Callable[[], object]]


class Streams:
    """What torch.cuda is asked for: streams, events, and the memory that they share."""

    def __init__(self) -> None:
        self.begun: Copies = []
        self.recorded: list[There] = []
        self.threads: set[str] = set()
        self._within = threading.local()

    @contextmanager
    def stream(self, which: Streams) -> Iterator[None]:
        assert which is self
        self._within.copies = True
        yield
        self._within.copies = False

    def record_event(self) -> Copies:
        assert self._within.copies
        event, self.begun = self.begun, []
        return event

    def current_stream(self, device: torch.device) -> Streams:
        assert device.type == DEVICE
        return self

    def wait_event(self, event: Copies) -> None:
        for copy in event:
            copy()

    def copy(self, host: torch.Tensor) -> There:
        """Begin to copy pinned memory: until its event nothing has arrived."""
        assert self._within.copies, "on the stream of the copies"
        self.threads.add(threading.current_thread().name)
        there = There(torch.full_like(host, 77))
        self.begun.append(lambda: there.here.copy_(host))
        return there


class Pinned:
    """Memory of the host that a device reads by itself."""

    def __init__(self, streams: Streams, host: torch.Tensor) -> None:
        self.streams, self.host = streams, host

    def to(self, device: torch.device, *, non_blocking: bool) -> There:
        assert device.type == DEVICE
        assert non_blocking
        return self.streams.copy(self.host)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    streams = Streams()
    monkeypatch.setattr(torch.cuda, "stream", streams.stream)
    monkeypatch.setattr(torch.cuda, "current_stream", streams.current_stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda own: Pinned(streams, own.clone()))
    monkeypatch.setattr(There, "record_stream", lambda own, _: streams.recorded.append(own))
    return streams


def copied_beside(streams: Streams) -> Batches:
    """Batches as on CUDA."""
    batches = Batches(tiny_data(), torch.device(DEVICE, 0), "fp32")
    vars(batches).update(_copies=streams, reads_ahead=True)
    return batches


@pytest.mark.parametrize("config", AUGMENTS.values(), ids=AUGMENTS)
def test_a_batch_is_used_after_it_has_arrived(streams, config):
    data = tiny_data()
    order = TrainOrder(len(data.train.images), 4, seed=0)

    def draws():
        return [(order.indices(step), stream(0, AUGMENT, step)) for step in range(6)]

    expected = list(Batches(data, torch.device("cpu"), "fp32").train(data.train, draws(), config))
    with StandIn():
        batches = copied_beside(streams)
        found = list(batches.train(data.train, draws(), config))
        assert len(found) == len(expected) == 6
        for (images, target, _), (own_images, own_target, _) in zip(found, expected, strict=True):
            torch.testing.assert_close(images.cpu(), own_images, rtol=1e-5, atol=1e-5)
            assert torch.equal(target.cpu(), own_target)
    assert len(streams.recorded) == 12  # pixels and labels of each batch
    assert streams.threads == {"prefetch_0"}


def test_an_evaluation_uses_what_has_arrived(streams):
    data = tiny_data()
    cpu = Batches(data, torch.device("cpu"), "fp32")
    with StandIn() as stand_in:
        batches = copied_beside(streams)
        stand_in.waits.clear()
        found = list(batches.evaluation(data.val, 3))
        assert not stand_in.waits
        for one, other in zip(found, cpu.evaluation(data.val, 3), strict=True):
            torch.testing.assert_close(one[0].cpu(), other[0], rtol=1e-5, atol=1e-5)
            assert torch.equal(one[1].cpu(), other[1])
    assert len(streams.recorded) == 6


def test_the_stand_in_is_late_with_what_is_not_waited_for(streams, monkeypatch):
    """The tests above can fail."""
    monkeypatch.setattr(Batches, "_arrived", lambda _, loaded: loaded.parts)
    with StandIn():
        data = tiny_data()
        ((_, target), *_) = copied_beside(streams).evaluation(data.val, 3)
        assert set(target.cpu().unique().tolist()) == {77}
