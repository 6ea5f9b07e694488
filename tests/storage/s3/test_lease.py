"""One driver at a time: a lease that is renewed, runs out, and is taken over."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import s3

from study.core.errors import InputError
from study.storage.s3.bucket import S3Prefix
from study.storage.s3.lease import KEY, Driver, Lease, TakenOver, is_driven

ELSEWHERE = Driver("another-machine", "boot", 1234, "5")


@pytest.fixture
def other(prefix: S3Prefix) -> Lease:
    """The lease of a driver on another machine, not taken yet."""
    return Lease(prefix, ELSEWHERE)


def test_a_driver_that_is_at_work_elsewhere_is_named(prefix: S3Prefix, other: Lease) -> None:
    assert other.take() == ""
    assert is_driven(prefix)
    with pytest.raises(InputError) as caught:
        Lease(prefix).take()
    assert str(caught.value).startswith(
        f"{prefix.where}: process 1234 on another-machine is working on this study, heard of "
    )
    other.give_back()
    assert not is_driven(prefix)
    assert Lease(prefix).take() == ""


def test_a_lease_that_has_run_out_is_taken_over_and_its_driver_learns_it(
    prefix: S3Prefix, other: Lease
) -> None:
    other.take()
    assert not is_driven(prefix, stale=0.0)
    mine = Lease(prefix, stale=0.0)
    assert mine.take().startswith("takes over from process 1234 on another-machine, last heard of")
    mine.renew()
    with pytest.raises(TakenOver, match=f"process {os.getpid()} on .* has taken the study over"):
        other.renew()
    mine.renew()


def test_a_dead_process_of_this_machine_holds_nothing(prefix: S3Prefix) -> None:
    dead = replace(Driver.this(), started="1")
    assert dead.is_dead
    assert not Driver.this().is_dead
    assert not ELSEWHERE.is_dead
    Lease(prefix, dead).take()
    assert not is_driven(prefix)
    assert "takes over from process" in Lease(prefix).take()


def test_a_renewal_whose_answer_was_lost_is_no_conflict(prefix: S3Prefix) -> None:
    lease = Lease(prefix)
    lease.take()
    content = prefix.get(KEY)
    assert content is not None
    prefix.put(KEY, content.data + b" ")  # the bucket has it, its entity tag never arrived
    lease.renew()
    lease.renew()


def test_two_that_begin_at_once_are_not_both_let_in(prefix: S3Prefix, other: Lease) -> None:

    def the_other_first(*_: object) -> None:
        other.take()

    mine = Lease(s3.Watched.of(prefix, before=the_other_first))
    with pytest.raises(InputError, match="process 1234 on another-machine is working"):
        mine.take()
