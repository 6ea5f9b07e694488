"""The fixture that fails an unmarked test which starts Ray hears of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ray_commands import starts_ray


@pytest.mark.parametrize(
    ("command", "does"),
    [
        (["/site-packages/ray/core/src/ray/gcs/gcs_server", "--log_dir=x"], True),
        (["python", "-m", "study.run", "joint"], True),
        (["python", "-m", "benchmarks.chaos", "--kills", "5"], True),
        (["python", "-m", "study.run", "joint", "--dry-run"], False),
        (["python", "-m", "study.run", "--help"], False),
        (["python", "-m", "study.status", "s"], False),
        ("python -m study.run", False),
    ],
)
def test_a_command_that_starts_ray_is_told_by_its_words(command: list[str], does: bool) -> None:
    assert starts_ray(command) == does


def test_a_process_that_starts_a_study_is_heard_of(started_ray: list[str]) -> None:
    for words in (["nothing"], ["study.run"]):
        subprocess.run([sys.executable, "-S", "-c", "pass", *words], check=True)
    assert [command.split()[-1] for command in started_ray] == ["study.run"]
    started_ray.clear()
