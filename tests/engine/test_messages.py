"""What Tune does to configs and results on their way leaves the records as they are."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from ray import cloudpickle
from ray.tune.utils.util import flatten_dict

from study.engine.messages import (
    MESSAGE,
    ORDER,
    BeatMessage,
    EpochMessage,
    FailureMessage,
    FaultMessage,
    TrialOrder,
    WorkerSettings,
)

SETTINGS = WorkerSettings(
    folder="a",
    prefix=None,
    num_threads=1,
    rungs=(3, 9),
    keep_last=False,
    keep_weights=True,
    beat_s=10.0,
)
RECORDS = [
    TrialOrder(
        trial="t0001",
        config={"loss": {"focal_gamma": 2.0}},
        stage="search",
        gpus=0.5,
        attempt=1,
        reported=3,
        settings=SETTINGS,
    ),
    BeatMessage("training or evaluating"),
    EpochMessage(4, {"val/miou": 0.5}, evidence=b"npz", environment={"device": "cpu"}),
    FailureMessage("a bug", by_machine=False),
    FaultMessage("memory", "out of memory"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_copies_pickles_and_flattening(record: Any) -> None:
    assert copy.deepcopy(record) == record
    assert cloudpickle.loads(cloudpickle.dumps(record)) == record
    key = ORDER if isinstance(record, TrialOrder) else MESSAGE
    assert flatten_dict({key: record}) == {key: record}
    with pytest.raises(FrozenInstanceError):
        setattr(record, next(iter(vars(record))), None)
