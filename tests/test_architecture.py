"""The shape of the program, read from its source: who may import whom, and what no file may do.

Every import counts, also one inside a function or for a type checker.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A module imports from its own room and the rooms before it; the rooms of one
# row do not know each other. The longest matching name decides.
ROWS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "ground": (
            "errors",
            "names",
            "telemetry",
            "config_errors",
            "yaml_file",
            "factories",
            "files",
            "signals",
        )
    },
    {"losses": ("losses", "metrics")},
    {
        "config": (
            *("config", "describe", "provenance"),
            *("space", "grammar", "inverse", "settings", "shipped"),
        )
    },
    {
        "training": (
            *("data", "models", "training"),
            *("augment", "batches", "checkpoint", "environment", "evaluation", "optim", "prefetch"),
        )
    },
    {"ledger": ("compact", "records", "state", "ledger")},
    {"storage": ("remote", "keeping")},
    {
        "decisions": (
            *("protocol", "search", "analysis", "exporting", "director"),
            *("budget", "handout", "retries"),
        )
    },
    {"engine": ("engine",), "tracking": ("tracking",), "reporting": ("reporting",)},
    {
        "commands": (
            *("", "preparation", "session"),
            *("run", "train", "export", "report", "status", "track", "schema", "data.__main__"),
        )
    },
)
ONLY_IN = {"ray": ("engine",), "mlflow": ("tracking",)}
LOSS_LIBRARIES = {"torch", "numpy", "pydantic"}
LOSS_MODULES = (
    "study.losses",
    "study.metrics",
    "study.core.errors",
    "study.core.names",
    "study.core.validation",
)
# Needed, but by another dependency's code.
UNSEEN = {"torchvision"}
MAX_LINES = 400


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted((ROOT / "study").rglob("*.py"))}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Full names of what import statements name; of `from study import x` it is study.x."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = below & MODULES.keys()
            names |= submodules
            if node.module not in MODULES or len(submodules) < len(below):
                names.add(node.module)
    return names


def _imports(module: str) -> set[str]:
    return _imported(ast.walk(_tree(module)))


def _own_imports(module: str) -> set[str]:
    return {name for name in _imports(module) if name.split(".")[0] == "study"}


def _libraries(module: str) -> set[str]:
    roots = {name.split(".")[0] for name in _imports(module)}
    return roots - {"study"} - sys.stdlib_module_names


def _room(module: str) -> tuple[int, str]:
    """(row, room) of a module."""
    below = module.removeprefix("study").removeprefix(".")
    best: tuple[int, int, str] | None = None
    for row, rooms in enumerate(ROWS):
        for room, members in rooms.items():
            for member in members:
                inside = below == member or (member and below.startswith(f"{member}."))
                if inside and (best is None or len(member) > best[0]):
                    best = (len(member), row, room)
    assert best is not None, f"{module} has no room: give it one in ROWS"
    return best[1:]


def _may_import(module: str, other: str) -> bool:
    (row, room), (other_row, other_room) = _room(module), _room(other)
    return other_row < row or room == other_room


@pytest.mark.parametrize("module", MODULES)
def test_no_import_points_back(module: str) -> None:
    wrong = [other for other in _own_imports(module) if not _may_import(module, other)]
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_the_rule_says_no_where_it_should() -> None:
    assert _may_import("study.training.trainer", "study.losses")
    assert not _may_import("study.losses", "study.training.trainer")
    assert not _may_import("study.reporting", "study.tracking.uri")
    assert not _may_import("study.data.formats.folder", "study.data.__main__")
    with pytest.raises(AssertionError, match="no room"):
        _room("study.somewhere_new")


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_by_one_package(library: str) -> None:
    users = {module for module in MODULES if library in _libraries(module)}
    assert users, f"nothing imports {library}"
    assert {_room(module)[1] for module in users} == set(ONLY_IN[library])


def test_losses_and_metrics_can_be_lifted_into_any_training_code() -> None:
    for module in MODULES:
        if _room(module)[1] == "losses":
            assert _libraries(module) <= LOSS_LIBRARIES, module
            own = {name for name in _own_imports(module) if not name.startswith(LOSS_MODULES)}
            assert not own, f"{module} imports {own}"


def test_training_knows_nothing_of_the_search() -> None:
    for module in MODULES:
        if _room(module)[1] == "training" and module != "study.data.__main__":
            assert not _libraries(module) & {"optuna", "ray", "mlflow", "rich"}, module


def test_modules_import_each_other_in_no_circle() -> None:
    def at_import(module: str) -> Iterator[ast.AST]:
        for node in _tree(module).body:
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
                yield node

    graph = {
        module: {name for name in _imported(at_import(module)) if name in MODULES} - {module}
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) < MAX_LINES


def test_help_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'segmentation_models_pytorch', 'matplotlib', 'scipy'}"
    code = f"import sys, study.run; print(*sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def _calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(item.value) for item in call.keywords if item.arg == name), None)


def _unsafe_loads(module: str) -> list[str]:
    """Calls that run code which a file brings along."""
    safe_loaders = {
        node.name
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.ClassDef)
        and any("SafeLoader" in ast.unparse(b) for b in node.bases)
    }
    found = []
    for name, call in _calls(module):
        unsafe = (
            (name == "yaml.load" and _keyword(call, "Loader") not in safe_loaders)
            or name in ("yaml.full_load", "yaml.unsafe_load", "yaml.load_all")
            or (name == "torch.load" and _keyword(call, "weights_only") != "True")
            or (name == "np.load" and _keyword(call, "allow_pickle") == "True")
            or name in ("pickle.load", "pickle.loads", "cloudpickle.load", "eval", "exec")
        )
        if unsafe:
            found.append(f"line {call.lineno}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_file_that_is_read_can_run_code(module: str) -> None:
    assert _unsafe_loads(module) == []


@pytest.mark.parametrize(
    "line",
    [
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.load(file)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_an_unsafe_load_is_found(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "unsafe.py"
    file.write_text(line, encoding="utf-8")
    monkeypatch.setitem(MODULES, f"unsafe.{line}", file)
    assert _unsafe_loads(f"unsafe.{line}")


def _dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[\[>=]", line)[0].lower() for line in project["dependencies"]}


def test_dependencies_are_what_is_imported() -> None:
    declared, distributions = _dependencies(), packages_distributions()
    used: set[str] = set()
    for module in MODULES:
        for library in _libraries(module):
            names = {name.lower().replace("_", "-") for name in distributions[library]}
            assert names & declared, f"{module} imports {library}: declare it in pyproject.toml"
            used |= names
    assert declared - used == UNSEEN


# Where packages come from is the user's own setting. (Brackets, so that this file does not match.)
REGISTRIES = re.compile(
    r"py[p]i\.(org|python)|python[h]osted\.org|[a]naconda\.org|[c]onda\.io|registry\.[n]pmjs"
    r"|[c]rates\.io|[r]ubygems\.org|repo\d*\.[m]aven|download\.[p]ytorch\.org"
    r"|[d]ocker\.io|hub\.[d]ocker\.com|\b(quay|ghcr|[a-z]*\.?gcr)\.[i]o\b"
    r"|--(extra-)?[i]ndex-url|--[f]ind-links"
)
SKIPPED = {".git", ".venv", "studies", "build", "dist", "mlruns", "mlartifacts", "__pycache__"}


def _texts() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        cached = any(part in SKIPPED or part.endswith("_cache") for part in parts)
        if path.is_file() and not cached and path.stat().st_size < 2_000_000:
            yield path


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in _texts()
        for match in REGISTRIES.finditer(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert found == []


def test_a_registry_is_recognised() -> None:
    assert REGISTRIES.search("https://" + "pyp" + "i.org/simple")
    assert REGISTRIES.search("pip install --" + "index-url=https://example.org torch")
    assert not REGISTRIES.search("https://arxiv.org/abs/2302.05666")
