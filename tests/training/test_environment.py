"""Device, precision and the record of both."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest
import torch
from tiny_task import tiny

from study.core.errors import InputError
from study.training.environment import environment, resolve_device, resolve_precision

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_device_that_is_not_here_is_bad_input():
    for device in ("cuda:63", "gpu"):
        with pytest.raises(InputError, match=f"^device: cannot use device '{device}'"):
            resolve_device(device)


def test_a_device_that_computes_nothing_is_bad_input():
    with pytest.raises(InputError, match=r"^device: cannot train on device 'meta' \(allowed: cpu"):
        resolve_device("meta")


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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_that_a_step_frees_is_not_fetched_again():
    code = """
import resource, torch
from study.training.environment import set_up_process
set_up_process(1)
def step(): held = [torch.ones(48 << 18) for _ in range(4)]
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): step()
before = faults()
for _ in range(20): step()
print((faults() - before) * resource.getpagesize() / 2**20)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 48  # MiB; one step takes 192
