"""Kill a study's processes at random moments, go on with it, and look at every row it leaves.

    python -m benchmarks.chaos [--kills 20] [--seed 0] [--slots 2] [--folder DIR]

A study runs on a Ray cluster of real nodes on this machine, each one a `ray start`. A seeded
sequence of faults meets it in the middle of training, each some reports after the one before, at a
random moment of an epoch:

worker   kill -9 of a trial's process
node     kill -9 of a whole node and all its trials; another one joins
driver   kill -9 of the driver; `--resume` goes on
head     kill -9 of the head, its GCS and the driver on it; started again, `--resume` goes on
cluster  kill -9 of the head alone: the driver must end by itself and say so; as above
spot     the spot market's notice, and seconds later kill -9 of the node; another one joins

Prints what was killed and when, then a verdict per invariant (benchmarks/chaos_verdict.py).
Exit code 0 where all of them hold. With `--slots 1` the disturbed study must equal an undisturbed
one entirely: proposals, decisions and numbers; with more, each of its trials must.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos_verdict import Fault, verdicts
from benchmarks.raylets import ROOT, Cluster, kill
from study.engine.spot import drain
from study.ledger.journal import LEDGER, read
from study.ledger.state import State, fold

KINDS = ("worker", "node", "driver", "head", "cluster", "spot")
PROGRESS_SECONDS = 120.0
NAME = "chaos"
EPOCHS = 8
SPACE: dict[str, Any] = {
    "loss": {
        "class_weights": {
            "scheme": "inverse_frequency",
            "exponent": {"float": {"low": 0.1, "high": 1.0}},
        },
        "recall": {
            "choice": {
                "off": None,
                "ema": {"ema_momentum": {"float": {"low": 0.5, "high": 0.99, "log": "to_one"}}},
            }
        },
        "jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}},
    },
    "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}},
    "study": {
        "reference_trials": 1,
        "baselines": ["ce", "recall_ema"],
        "rungs": {"first": 0.375, "reduction_factor": 2},
        "confirm": {"top": 1, "num_seeds": 1},
    },
}


@dataclass
class Chaos:
    """One study, its cluster, and the faults that have met them."""

    folder: Path
    seed: int
    slots: int
    num_trials: int
    faults: list[Fault] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.began = time.monotonic()
        self._joined = 0
        tree = yaml.safe_load((ROOT / "study/tasks/tiny.yaml").read_text(encoding="utf-8"))
        tree["budget"] = {"epochs": EPOCHS}
        (self.folder / "task.yaml").write_text(yaml.safe_dump(tree))
        settings = {**SPACE["study"], "num_trials": self.num_trials}
        (self.folder / "space.yaml").write_text(yaml.safe_dump({**SPACE, "study": settings}))
        self.cluster = Cluster("--num-cpus=0", environment={"PYTHONPATH": str(ROOT)})
        self._fill()
        self.driver = self._drive("space.yaml", "--task", "task.yaml", "--name", NAME)

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.folder / "studies" / NAME

    @property
    def state(self) -> State:
        """As its ledger has it now."""
        path = self.study / LEDGER
        return fold(read(path)) if path.exists() else State()

    @property
    def ledger(self) -> bytes:
        """The ledger's lines, whole or not."""
        path = self.study / LEDGER
        return path.read_bytes() if path.exists() else b""

    def _fill(self) -> None:
        while len(self.cluster.nodes) < self.slots:
            self._joined += 1
            ip = f"--node-ip-address=127.0.1.{self._joined}"
            self.cluster.join("--num-cpus=1", ip)

    def _drive(self, *arguments: str) -> subprocess.Popen[bytes]:
        where = ("--address", self.cluster.address, "--max-concurrent", str(self.slots))
        with open(self.folder / f"driver{len(self.exits)}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "study.run", *arguments, *where],
                cwd=self.folder,
                env=self.cluster.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_reports(self, count: int) -> bool:
        """Until so many more reports; False where the driver ended before."""
        goal = self.ledger.count(b'{"kind": "report"') + count
        end = time.monotonic() + PROGRESS_SECONDS
        while self.ledger.count(b'{"kind": "report"') < goal:
            if self.driver.poll() is not None:
                return False
            if time.monotonic() > end:
                raise TimeoutError(f"no report for {PROGRESS_SECONDS:g} s; {self.folder}")
            time.sleep(0.02)
        return True

    def strike(self, kind: str) -> None:
        """One fault, and what its victims need to go on."""
        self.faults.append(Fault(kind, time.monotonic() - self.began, self.ledger))
        print(f"{self.faults[-1].seconds:4.0f} s: {kind}", file=sys.stderr, flush=True)
        match kind:
            case "worker":
                kill(self.random.choice([p for node in self.cluster.nodes for p in node.workers]))
            case "node" | "spot":
                node = self.cluster.nodes.pop(self.random.randrange(len(self.cluster.nodes)))
                if kind == "spot":
                    seconds = self.random.uniform(0.5, 5)
                    drain(self.cluster.address, node.ip, seconds)
                    time.sleep(seconds)
                node.kill()
            case "driver":
                self._kill_driver()
            case "head" | "cluster":
                self.cluster.head.kill()
                self._kill_driver() if kind == "head" else self._wait_for_driver()
                for node in self.cluster.nodes:
                    node.kill()
                self.cluster.nodes.clear()
                self.cluster.restart()
        self._fill()
        if kind in ("driver", "head", "cluster"):
            self.driver = self._drive("--resume", NAME)

    def _kill_driver(self) -> None:
        kill(self.driver.pid)
        self.exits.append(self.driver.wait())

    def _wait_for_driver(self) -> None:
        try:
            code = self.driver.wait(PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill_driver()
            return
        self.exits.append(code)

    def run(self, kinds: list[str]) -> None:
        """All faults, then to the end of the study."""
        for kind in kinds:
            if not self.wait_for_reports(self.random.randint(1, 4)):
                break
            time.sleep(self.random.uniform(0, 0.3))
            if self.driver.poll() is None:
                self.strike(kind)
        self.exits.append(self.driver.wait())


def sequence(kills: int, seed: int, of: Sequence[str]) -> list[str]:
    """Every kind once, in any order, then every kind once more, and so on."""
    draw = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < kills:
        kinds += draw.sample(of, len(of))
    return kinds[:kills]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slots", type=int, default=2, help="nodes of one CPU")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--folder", type=Path, help="kept; a temporary one otherwise")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no process behind either
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{options.kills} kills, seed {options.seed}, {options.slots} slots", flush=True)
    chaos = Chaos(
        folder,
        seed=options.seed,
        slots=options.slots,
        num_trials=max(3, round(2.4 * options.kills)),
    )
    try:
        chaos.run(sequence(options.kills, options.seed, options.kinds))
    finally:
        kill(chaos.driver.pid)
        chaos.cluster.__exit__()
    failed = report(chaos, options.kills)
    if not failed and options.folder is None:
        shutil.rmtree(folder)
    return int(failed)


def report(chaos: Chaos, kills: int) -> bool:
    """Print the faults and the verdicts; whether one of them is bad."""
    print(
        "| # | s | killed | ledger lines | training then: trial, epochs reported -> went on with |"
    )
    print("|---|---|---|---|---|")
    for number, fault in enumerate(chaos.faults, 1):
        after = fault.next_epochs(chaos.ledger)
        live = ", ".join(
            f"{trial} {e} -> {after.get(trial, '')}" for trial, e in fault.live.items()
        )
        lines = fault.before.count(10)
        print(f"| {number} | {fault.seconds:.0f} | {fault.kind} | {lines} | {live} |")
    failed = False
    print("\n| must hold | found |\n|---|---|")
    for name, problems in verdicts(chaos, kills):
        failed |= bool(problems)
        print(f"| {name} | {'; '.join(problems[:5]) or 'yes'} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
