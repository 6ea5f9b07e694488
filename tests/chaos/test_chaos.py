"""A study that is killed again and again comes to the rows of one that is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
SEED = 7


def _killed(*arguments: str) -> set[str]:
    """Run benchmarks.chaos, every verdict of which must hold; the kinds of faults that struck."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--seed", str(SEED), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {SEED}\n{done.stdout}\n{done.stderr[-4000:]}"
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return {row[2] for row in rows if row[0].strip("| ").isdigit()}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_after_five_kills_every_row_is_that_of_an_undisturbed_study() -> None:
    kinds = ("worker", "node", "driver", "head")
    assert _killed("--kills", "5", "--kinds", *kinds) == set(kinds)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("slots", ["1", "2"])
def test_after_twenty_kills_of_every_kind_too(slots: str) -> None:
    kinds = {"worker", "node", "driver", "head", "cluster", "spot"}
    assert _killed("--kills", "20", "--slots", slots) == kinds
