"""One driver at a time: a lease that is renewed, runs out, and is taken over."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from study.core.errors import InputError
from study.storage.s3 import lease as leases
from study.storage.s3.bucket import Bucket
from study.storage.s3.lease import KEY, Driver, Lease, TakenOver, is_driven

ELSEWHERE = Driver("another-machine", "boot", 1234, "5")


@pytest.fixture
def other(place: Bucket, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """The lease of a driver on another machine, not taken yet."""
    with monkeypatch.context() as there:
        there.setattr(Driver, "this", lambda: ELSEWHERE)
        return Lease(place)


def test_a_driver_that_is_at_work_elsewhere_is_named(place: Bucket, other: Lease) -> None:
    assert other.take() == ""
    assert is_driven(place)
    with pytest.raises(InputError) as caught:
        Lease(place).take()
    assert str(caught.value).startswith(
        f"{place.where}: one driver at a time may work on a study, but process 1234 on "
        "another-machine is at work (heard of "
    )
    other.give_back()
    assert not is_driven(place)
    assert Lease(place).take() == ""


def test_a_lease_that_has_run_out_is_taken_over_and_its_driver_learns_it(
    place: Bucket, other: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.take()
    monkeypatch.setattr(leases, "STALE_SECONDS", 0.0)
    assert not is_driven(place)
    mine = Lease(place)
    assert mine.take().startswith("takes over from process 1234 on another-machine, last heard of")
    mine.renew()
    with pytest.raises(TakenOver, match=f"process {os.getpid()} on .* has taken the study over"):
        other.renew()
    mine.renew()


def test_a_dead_process_of_this_machine_holds_nothing(
    place: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = replace(Driver.this(), started="1")
    assert dead.is_dead
    assert not Driver.this().is_dead
    assert not ELSEWHERE.is_dead
    with monkeypatch.context() as before:
        before.setattr(Driver, "this", lambda: dead)
        Lease(place).take()
    assert not is_driven(place)
    assert "takes over from process" in Lease(place).take()


def test_a_renewal_whose_answer_was_lost_is_no_conflict(place: Bucket) -> None:
    lease = Lease(place)
    lease.take()
    content = place.get(KEY)
    assert content is not None
    place.put(KEY, content.data + b" ")  # the bucket has it, its entity tag never arrived
    lease.renew()
    lease.renew()


def test_two_that_begin_at_once_are_not_both_let_in(
    place: Bucket, other: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Lease(place)
    put = Bucket.put

    def after_the_other(self: Bucket, *args: object, **options: object) -> str:
        monkeypatch.setattr(Bucket, "put", put)
        other.take()
        return put(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Bucket, "put", after_the_other)
    with pytest.raises(InputError, match="process 1234 on another-machine is at work"):
        mine.take()
