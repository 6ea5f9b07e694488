"""The whole loop on a device that is not the CPU, without hardware."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

CASES = sorted((Path(__file__).parent / "accelerator").glob("*_cases.py"))
# Experimental in torch.
PRIVATE = (
    (torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    (torch._C, "_set_only_lift_cpu_tensors"),
)


@pytest.mark.skipif(
    not all(hasattr(*name) for name in PRIVATE), reason="no devices in Python in this torch"
)
@pytest.mark.timeout(900)
def test_batches_and_trainings_on_a_stand_in_for_an_accelerator() -> None:
    """In a process of their own, whose torch then knows that device."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n=0", "-q", "-p", "no:cacheprovider", *CASES],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(CASES) == 2
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-1000:]
