"""When the process that writes to MLflow begins to import it."""

from __future__ import annotations

import threading

import pytest
from ledgers import make_study

from study.ledger.journal import LEDGER
from study.tracking.follow import await_a_report

PATIENCE = 60.0


@pytest.fixture
def lines(tmp_path):
    make_study(tmp_path / "whole")
    return (tmp_path / "whole" / LEDGER).read_bytes().splitlines(keepends=True)


def first_report(lines):
    return next(number for number, line in enumerate(lines) if b'"report"' in line)


@pytest.mark.slow
def test_it_waits_for_the_first_report(tmp_path, lines):
    ledger = tmp_path / LEDGER
    closing = threading.Event()
    waiting = threading.Thread(target=await_a_report, args=(tmp_path, closing, PATIENCE))
    waiting.start()
    count = first_report(lines)
    ledger.write_bytes(b"".join(lines[:count]))
    waiting.join(1.0)
    assert waiting.is_alive()
    ledger.write_bytes(b"".join(lines[: count + 1]))
    waiting.join(PATIENCE / 2)
    assert not waiting.is_alive()


@pytest.mark.parametrize("timeout", [PATIENCE, 0.0])
def test_it_waits_no_longer_than_the_driver_lives_or_than_is_fit(tmp_path, timeout):
    closing = threading.Event()
    if timeout:
        closing.set()
    waiting = threading.Thread(target=await_a_report, args=(tmp_path, closing, timeout))
    waiting.start()
    waiting.join(PATIENCE / 2)
    assert not waiting.is_alive()
