"""One driver at a time: a lease that is renewed, runs out, and is taken over."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from study.core.errors import InputError
from study.storage.s3 import lease as leases
from study.storage.s3.bucket import S3Prefix
from study.storage.s3.lease import KEY, Driver, Lease, TakenOver, is_driven

ELSEWHERE = Driver("another-machine", "boot", 1234, "5")


@pytest.fixture
def other(prefix: S3Prefix, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """The lease of a driver on another machine, not taken yet."""
    with monkeypatch.context() as there:
        there.setattr(Driver, "this", lambda: ELSEWHERE)
        return Lease(prefix)


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
    prefix: S3Prefix, other: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.take()
    monkeypatch.setattr(leases, "STALE_SECONDS", 0.0)
    assert not is_driven(prefix)
    mine = Lease(prefix)
    assert mine.take().startswith("takes over from process 1234 on another-machine, last heard of")
    mine.renew()
    with pytest.raises(TakenOver, match=f"process {os.getpid()} on .* has taken the study over"):
        other.renew()
    mine.renew()


def test_a_dead_process_of_this_machine_holds_nothing(
    prefix: S3Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = replace(Driver.this(), started="1")
    assert dead.is_dead
    assert not Driver.this().is_dead
    assert not ELSEWHERE.is_dead
    with monkeypatch.context() as before:
        before.setattr(Driver, "this", lambda: dead)
        Lease(prefix).take()
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


def test_two_that_begin_at_once_are_not_both_let_in(
    prefix: S3Prefix, other: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Lease(prefix)
    put = S3Prefix.put

    def after_the_other(self: S3Prefix, *args: object, **options: object) -> str:
        monkeypatch.setattr(S3Prefix, "put", put)
        other.take()
        return put(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(S3Prefix, "put", after_the_other)
    with pytest.raises(InputError, match="process 1234 on another-machine is working"):
        mine.take()
