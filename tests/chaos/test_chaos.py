"""A study that is killed again and again comes to the rows of one that is not.

Twenty kills and more, of more kinds: python -m benchmarks.chaos
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
SEED = 7


@pytest.mark.timeout(900)
def test_after_five_kills_every_row_is_that_of_an_undisturbed_study() -> None:
    kinds = ("worker", "node", "driver", "head")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.chaos", "--kills", "5", "--seed", str(SEED)),
            *("--kinds", *kinds),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout}\n{done.stderr[-4000:]}"
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert {row[2] for row in rows if row[0].strip("| ").isdigit()} == set(kinds)
