"""Device, precision and the record of both."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_task import tiny

from study.environment import environment, resolve_device, resolve_precision
from study.errors import InputError

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_device_that_is_not_here_is_bad_input():
    for device in ("cuda:63", "gpu"):
        with pytest.raises(InputError, match=f"^device: must be a device .* got '{device}'"):
            resolve_device(device)


def test_precision_follows_the_device_only_when_it_is_auto():
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_the_environment_records_what_decides_the_numbers():
    record = environment(tiny(precision="bf16"), "cpu")
    assert record["device"] == "cpu"
    assert record["precision"] == "bf16"
    assert record["num_threads"] == 1
    assert record["versions"]["torch"] == torch.__version__
    assert {"numpy", "segmentation-models-pytorch"} <= set(record["versions"])
    assert environment(num_threads=3)["num_threads"] == 3
    assert json.loads(json.dumps(record)) == record
