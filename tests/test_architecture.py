"""The shape of the program, read from its source: who may import whom, and what no file may do.

The order of the rooms is derived from the folders: nothing may import in a circle, at any level.
Every import counts, also one inside a function or for a type checker.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from docs import architecture
from docs.architecture import MODULES, ROOT, imports, is_command, own_imports, room

PACKAGES = [module for module, path in MODULES.items() if path.name == "__init__.py"]
# A library that only these rooms may import.
ONLY_IN = {
    "ray": {"study.engine"},
    "mlflow": {"study.tracking"},
    "optuna": {"study.space", "study.search"},
    "rich": {"study.reporting"},
    "matplotlib": {"study.reporting"},
    "boto3": {"study.storage"},
    "lightning": {"study.adapters"},
    "transformers": {"study.adapters"},
    "mmengine": {"study.adapters"},
}
LOSS_LIBRARIES = {"torch", "numpy", "pydantic"}
# What a user may lift into other training code, and what that may stand on.
LOSS_ROOMS = {"study.losses", "study.metrics"}
ADAPTED = {library for library, rooms in ONLY_IN.items() if rooms == {"study.adapters"}}
# Needed, but by another dependency's code.
UNSEEN = {"torchvision"}
# Import paths that stay: users' code holds them.
PUBLIC = {
    "study": ("load", "run_study"),
    "study.inference": ("Prediction", "Predictor", "load"),
    "study.losses": ("PRESETS", "LossConfig", "SegmentationLoss", "build_loss", "class_counts"),
    "study.metrics": ("SegmentationMetrics", "build_decision"),
    "study.training": ("EpochReport", "train"),
    "study.data": ("SegmentationData", "open_data"),
    "study.trials": ("TrialContext",),
}


def _libraries(module: str) -> set[str]:
    roots = {name.split(".")[0] for name in imports(module)}
    return roots - {"study"} - sys.stdlib_module_names


def _reached(module: str) -> set[str]:
    """The modules that a module imports, directly or through others."""
    found, left = set[str](), [module]
    while left:
        new = own_imports(left.pop()) - found
        found |= new
        left += new
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_in_a_folder_imports_in_a_circle(package: str) -> None:
    try:
        architecture.ordered(package)
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_circle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upward = tmp_path / "upward.py"
    upward.write_text("if TYPE_CHECKING:\n    from study.losses import build_loss\n", "utf-8")
    monkeypatch.setitem(MODULES, "study.core.upward", upward)
    with pytest.raises(CycleError, match=r"study\.core"):
        architecture.ordered()


def test_nothing_imports_a_command() -> None:
    commands = {module for module in MODULES if is_command(module)}
    assert {"study.run", "study.train", "study.report", "study.status"} <= commands
    assert [m for m in MODULES if own_imports(m) & commands] == []


def test_every_file_beside_the_rooms_is_a_command_or_public() -> None:
    beside = [m for m, path in MODULES.items() if path.parent.name == "study"]
    assert [m for m in beside if not is_command(m) and m not in PUBLIC] == []


def test_the_page_shows_the_tree_as_it_is() -> None:
    _, written, _ = architecture.parts(architecture.PAGE.read_text(encoding="utf-8"))
    assert written == architecture.text(), "run: python -m docs.architecture"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_by_its_rooms_alone(library: str) -> None:
    users = {room(module) for module in MODULES if library in _libraries(module)}
    assert users == ONLY_IN[library]


def test_losses_and_metrics_can_be_lifted_into_any_training_code() -> None:
    for module in MODULES:
        if room(module) in LOSS_ROOMS:
            assert _libraries(module) <= LOSS_LIBRARIES, module
            rooms = {room(name) for name in _reached(module)}
            assert rooms <= {*LOSS_ROOMS, "study.core"}, f"{module} reaches {rooms}"


def test_training_knows_nothing_of_the_search() -> None:
    for module in MODULES:
        if room(module) in {"study.training", "study.data"}:
            for reached in {module, *_reached(module)}:
                found = _libraries(reached) & {"optuna", "ray", "mlflow", "rich"}
                assert not found, f"{module} reaches {reached}, which imports {found}"


FORKED = """
import importlib, os, sys
import segmentation_models_pytorch  # and torch, once for all
for line in sys.stdin.read().splitlines():
    module, *names = line.split()
    if os.fork() == 0:
        found = importlib.import_module(module)
        missing = [name for name in names if name not in found.__all__ or not hasattr(found, name)]
        print(module, *missing, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_each_public_path_can_be_imported_first() -> None:
    lines = "\n".join(f"{module} {' '.join(names)}" for module, names in PUBLIC.items())
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        cwd=ROOT, input=lines, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [*PUBLIC], done.stderr


def test_the_api_page_documents_each_public_name() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)", page, re.MULTILINE)}
    assert {name for names in PUBLIC.values() for name in names} <= shown


def test_help_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'segmentation_models_pytorch', 'matplotlib', 'scipy'}"
    code = f"import sys, study.run; print(*sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def _calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(architecture.tree(module)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(item.value) for item in call.keywords if item.arg == name), None)


def _unsafe_loads(module: str) -> list[str]:
    """Calls that run code which a file brings along."""
    safe_loaders = {
        node.name
        for node in ast.walk(architecture.tree(module))
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
    extras = project["optional-dependencies"]
    lines = (*project["dependencies"], *extras["study"], *extras["convert"])
    return {re.split(r"[\[>=]", line)[0].lower() for line in lines}


def test_dependencies_are_what_is_imported() -> None:
    declared, distributions = _dependencies(), packages_distributions()
    used: set[str] = set()
    for module in MODULES:
        for library in _libraries(module) - ADAPTED:
            names = {name.lower().replace("_", "-") for name in distributions[library]}
            assert names & declared, f"{module} imports {library}: declare it in pyproject.toml"
            used |= names
    assert declared - used == UNSEEN


def test_each_adapters_framework_is_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for library in ADAPTED:
        assert library in {re.split(r"[\[>=]", line)[0] for line in extras[library]}


def test_nothing_imports_an_adapter() -> None:
    others = [module for module in MODULES if room(module) != "study.adapters"]
    assert [m for m in others if any(room(n) == "study.adapters" for n in imports(m))] == []


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


@pytest.mark.slow
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
