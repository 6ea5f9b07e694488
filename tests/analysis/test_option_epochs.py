from __future__ import annotations

from pathlib import Path

import pytest
from ledgers import make_study

from study.analysis.option_epochs import option_epochs
from study.core.names import REFERENCE, SEARCH
from study.ledger.journal import Ledger
from study.ledger.records import ReportRecord, TrialRecord
from study.storage.studies import load


def train(ledger: Ledger, stage: str, option: str, epochs: int) -> None:
    name = f"t{len(ledger.state.trials):04d}"
    params = {"loss/jaccard": option, "optimizer/lr_scale": 1.0}
    ledger.append(TrialRecord(name, 0, stage, option, "jaccard", params, {}, 0))
    for epoch in range(1, epochs + 1):
        ledger.append(ReportRecord(name, 0, epoch, {"val/miou": 0.4}))


def test_epochs_are_counted_by_option_with_and_without_the_reference(tmp_path: Path) -> None:
    ledger = Ledger(make_study(tmp_path / "x", until="baselines"))
    train(ledger, REFERENCE, "off", 6)
    train(ledger, SEARCH, "off", 3)
    train(ledger, SEARCH, "on", 1)
    ledger.close()
    off, on = option_epochs(load(tmp_path / "x"))
    assert (off.path, off.option, on.option) == ("loss/jaccard", "off", "on")
    assert (off.trials, off.epochs, on.trials, on.epochs) == (2, 9, 1, 1)
    assert (off.fraction, on.fraction) == pytest.approx((0.9, 0.1))
    assert (off.sampled, on.sampled) == pytest.approx((0.75, 0.25))
    assert off.equal == on.equal == 0.5


def test_an_option_that_nobody_has_tried_has_nothing(tmp_path: Path) -> None:
    made = option_epochs(load(make_study(tmp_path / "x", until="baselines")))
    assert [(item.option, item.trials, item.fraction) for item in made] == [
        ("off", 0, 0),
        ("on", 0, 0),
    ]
