"""Checks each node of a cluster before it gets trials, also one that joins during a study.

A node is unfit where this package cannot be imported, where it, torch, Ray or Python is another
than here, and where the study's storage, data or GPUs are missing (`probe`). Trials are placed on
other nodes. Ray places a trial that waits on a node that has just
joined before that is checked: there such a trial does not begin, and goes back unharmed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from study.engine.probe import Probe, ask
from study.engine.ray_internals import Node, last_line, nodes_up, on_node

LOOK_SECONDS = 2.0
START_SECONDS = 300.0  # a node that has not answered by then gets no trial until it does
PROBE_SECONDS = 30.0  # a node that still reads its data by then is used later
FAULT_SECONDS = 30.0
SILENT = "no process there has answered within five minutes"
PENDING = "its data and storage are still being checked"
Installed = Mapping[str, str]


def finder() -> Callable[[], Installed]:
    """A function that finds what is installed where it runs: versions and a digest of this
    package's .py files, or the error of its import. It is made here for Ray to pickle its code: it
    also runs where this package is missing."""

    def find() -> Installed:
        import hashlib
        import platform
        from pathlib import Path

        try:
            import ray
            import torch

            import study.training.trainer
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        root, digest = Path(str(study.__file__)).parent, hashlib.sha256()
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
        return {
            "Python": ".".join(platform.python_version_tuple()[:2]),
            "Ray": ray.__version__,
            "torch": torch.__version__.partition("+")[0],  # without its build, as in +cu132
            "package": digest.hexdigest(),
        }

    return find


def difference(there: Installed, here: Installed) -> str:
    """Why a node is unfit, in words; empty if it is not.

    Args:
        there: what is installed on the node.
        here: what is installed on the driver's machine.
    """
    if "error" in there:
        return f"this package cannot be imported there: {there['error']}"
    found = [
        f"{name} {there[name]} (here {here[name]})"
        for name in ("Python", "Ray", "torch")
        if there[name] != here[name]
    ]
    if there["package"] != here["package"]:
        found.append("another version of this package (its .py files are not those here)")
    return f"it has {' and '.join(found)}" if found else ""


class NodeCheck:
    """Tells fit nodes from unfit ones, in a thread that goes on until `close`.

    Before `begin` every node is taken as fit, as on this machine's own Ray.
    """

    def __init__(self) -> None:
        self.find = finder()
        self.here: Installed | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._up: dict[str, Node] = {}
        self._names: dict[str, str] = {}  # of every node seen
        self._fit: set[str] = set()
        self._unfit: dict[str, str] = {}
        self._asked: dict[Any, str] = {}  # the node of each check that runs
        self.probe: Probe | None = None
        self._to_probe: set[str] = set()
        self._probed: set[str] = set()  # whose check that runs is the probe
        self._lines: list[str] = []
        self._said: set[str] = set()

    def begin(self, here: Installed) -> None:
        """Start to check all nodes, against what is installed here."""
        self.here = here
        self._thread = threading.Thread(target=self._watch, daemon=True, name="nodes")
        self._thread.start()

    def close(self) -> None:
        """Check no more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(LOOK_SECONDS * 2)

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until each node that is up is checked; one that does not answer in time is unfit."""

        with self._changed:
            if not self._changed.wait_for(self._is_checked, seconds):
                for node in self._asked.values():
                    self._refuse(node, SILENT)

    def _is_checked(self) -> bool:
        return bool(self._names) and not self._asked and not self._to_probe

    def demand(
        self,
        probe: Probe,
        say: Callable[[str], None] = lambda line: None,
        *,
        seconds: float = PROBE_SECONDS,
    ) -> None:
        """Let only nodes be fit that also have what the probe asks for, those too that join later.

        Waits for all answers, or after `seconds` for one node that is fit: reading the data may
        take long, and a node is used as soon as it has done so. `say` is called if it takes long.
        """
        with self._changed:
            if self.here is None:
                return
            self.probe = probe
            self._to_probe = set(self._fit)
            self._fit.clear()

            def is_usable() -> bool:
                return self._is_checked() or bool(self._fit)

            if not self._changed.wait_for(self._is_checked, seconds):
                say("the nodes read the data, and are used as soon as they have ...")
                self._changed.wait_for(is_usable)

    @property
    def fit(self) -> Mapping[str, Node] | None:
        """The nodes that are up and fit, by their ids; None before `begin`."""
        with self._changed:
            if self.here is None:
                return None
            return {node.id: node for node in self._up.values() if node.id in self._fit}

    @property
    def closed(self) -> Mapping[str, str]:
        """Why nodes that are up get no trial for now, by their ids."""
        with self._changed:
            pending = (self._to_probe | self._probed) & self._up.keys()
            return {node: f"{self._names[node]}: {PENDING}" for node in pending} | {
                node: why for node, why in self._unfit.items() if node in self._up
            }

    @property
    def checked(self) -> frozenset[str] | None:
        """The ids of the nodes that are fit; None where all are."""
        with self._changed:
            return None if self.here is None else frozenset(self._fit)

    @property
    def unfit(self) -> Mapping[str, str]:
        """The unfit nodes that are up: why, by their ids."""
        with self._changed:
            return {node: why for node, why in self._unfit.items() if node in self._up}

    def why_unfit(self, node: str, seconds: float = FAULT_SECONDS) -> str:
        """Why the node with this id is unfit; empty if it is not. Waits until it is checked, or
        gone."""

        def is_known() -> bool:
            is_gone = node in self._names and node not in self._up
            return node in self._fit or node in self._unfit or is_gone

        with self._changed:
            if self.here is not None:
                self._changed.wait_for(is_known, seconds)
            return self._unfit.get(node, "")

    def news(self) -> list[str]:
        """A line for each node that was found unfit since the last call."""
        with self._changed:
            lines, self._lines = self._lines, []
            return lines

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._look()
            except Exception:  # whatever Ray raises for a cluster that it cannot reach
                self._closing.wait(LOOK_SECONDS)

    def _look(self) -> None:
        """Ask each node that is new, and wait for an answer or some time."""
        import ray

        up = {node.id: node for node in nodes_up()}
        new = [node for node in up if node not in self._names]
        asked = {on_node(node, self.find): node for node in new if up[node].holds_trials}
        with self._changed:
            self._up = up
            self._names |= {node.id: node.name for node in up.values()}
            to_probe = [up[node] for node in self._to_probe if node in up]
            probe = self.probe
        if probe is not None:
            asked |= {self._ask(probe, node): node.id for node in to_probe}
        with self._changed:
            self._asked.update(asked)
            self._probed |= {node.id for node in to_probe}
            self._to_probe -= {node.id for node in to_probe}
            self._to_probe &= up.keys()
            self._changed.notify_all()
        if not self._asked:
            self._closing.wait(LOOK_SECONDS)
            return
        for answer in ray.wait(list(self._asked), num_returns=1, timeout=LOOK_SECONDS)[0]:
            self._take(answer)

    @staticmethod
    def _ask(probe: Probe, node: Node) -> Any:
        gpus = int(node.resources.get("GPU", 0)) if probe.gpus else 0
        of_node = replace(probe, gpus=gpus)

        def find_trouble() -> str:
            return ask(of_node)

        return on_node(node.id, find_trouble)

    def _take(self, answer: Any) -> None:
        """Take in what a node has answered, and ask for the rest if that is well."""
        import ray

        node = self._asked[answer]
        is_probed = node in self._probed
        try:
            found = ray.get(answer)
            why = found if is_probed else difference(found, self.here or {})
        except ray.exceptions.RayError as error:
            is_gone = node not in {one.id for one in nodes_up()}
            why = "" if is_gone else f"a process there fails: {last_line(error)}"
        with self._changed:
            del self._asked[answer]
            self._probed.discard(node)
            self._unfit.pop(node, None)
            if why:
                self._refuse(node, why)
            elif self.probe is not None and not is_probed:
                self._to_probe.add(node)
            else:
                self._fit.add(node)
            self._changed.notify_all()

    def _refuse(self, node: str, why: str) -> None:
        name = self._names[node]
        self._unfit[node] = f"{name}: {why}"
        line = f"node {name} gets no trial: {why}"
        if line not in self._said:
            self._said.add(line)
            self._lines.append(line)
