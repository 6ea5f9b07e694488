"""Trains every export of the recorded study again, and writes docs/reproduced.csv: bit for bit?

    python -m docs.reproduced

A minute or two for each export on one CPU. An export is reproduced where `study.train` finds all
its recorded metrics equal to the last bit. They are equal on CPUs of one kind, with equal versions
and threads (docs/architecture.md); a row says where another commit trained.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from docs.architecture import ROOT
from study.reporting.exports import FOLDER
from study.reporting.recorded import write_recorded

PATH = ROOT / "docs" / "reproduced.csv"
COLUMNS = ("export", "trial", "exact", "metrics", "recorded_at", "trained_at")
EXACT = "reproduced exactly"


def main() -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        write_recorded(Path(folder))
        exports = Path(folder) / FOLDER
        rows = [
            _trained(path, path.relative_to(exports).with_suffix("").as_posix(), commit)
            for path in sorted(exports.rglob("*.yaml"))
        ]
    with PATH.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


def _trained(path: Path, name: str, commit: str) -> tuple[object, ...]:
    origin = yaml.safe_load(path.read_text(encoding="utf-8"))["provenance"]
    done = subprocess.run(
        [sys.executable, "-m", "study.train", str(path)],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    print(name, done.stdout, done.stderr, flush=True)
    exact = done.returncode == 0 and EXACT in done.stdout
    metrics = sum(not key.startswith("time/") for key in origin["metrics"])
    recorded = origin["environment"]["commit"]
    return name, origin["trial"], "yes" if exact else "no", metrics, recorded, commit


if __name__ == "__main__":
    main()
