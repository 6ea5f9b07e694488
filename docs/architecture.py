"""The tree of the package in docs/architecture.md, from module docstrings and imports.

`python -m docs.architecture` writes it anew. The order of the rooms is written down nowhere: it
follows from who imports whom, lowest room last.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "study"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "```text\n", "```\n"


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Mapping[str, Path] = {_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of what a module imports, inside functions and for type checkers too.

    Of `from study import x` it is `study.x` where that is a module, else `study`.
    """
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: imports are absolute"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = below & MODULES.keys()
            names |= submodules
            if node.module not in MODULES or len(submodules) < len(below):
                names.add(node.module)
    return frozenset(names)


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    return {name for name in imports(module) if name in MODULES} - {module}


def room(module: str, level: int = 1) -> str:
    """The first `level` names below the package: a folder, or a file that lies beside folders."""
    return ".".join(module.split(".")[: level + 1])


def is_command(module: str) -> bool:
    """Whether it is typed: a file directly in the package that has a `main`, or the package."""
    here = module.count(".") < 2 and MODULES[module].parent.name == PACKAGE
    functions = (node for node in tree(module).body if isinstance(node, ast.FunctionDef))
    return module == PACKAGE or (here and any(one.name == "main" for one in functions))


def graph(parent: str = PACKAGE) -> dict[str, set[str]]:
    """Who imports whom among the folders and files of a folder; commands are left out.

    What a module imports counts for its folder, also from inside its subfolders.
    """
    level = parent.count(".") + 1
    inside = [m for m in MODULES if f"{m}.".startswith(f"{parent}.") and not is_command(m)]
    found: dict[str, set[str]] = {room(module, level): set() for module in inside}
    for module in inside:
        here = room(module, level)
        others = {room(name, level) for name in own_imports(module)} & found.keys()
        found[here] |= others - {here}
    return found


def ordered(parent: str = PACKAGE) -> list[str]:
    """The folders and files of a folder, from what is imported to what imports; by name where the
    imports leave it open. Raises graphlib.CycleError where they import each other."""
    sorter = TopologicalSorter(graph(parent))
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found += ready
        sorter.done(*ready)
    return found


def _summary(module: str) -> str:
    """The first sentence of a module's docstring, without the command line before it."""
    text = ast.get_docstring(tree(module)) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    first = re.sub(r"^`*python -m [^:]*`*: ", "", first)
    return re.split(r"(?<!al)\.(?: |$)", first)[0]


def _lines(parent: str, depth: int) -> Iterator[str]:
    names = [name for name in reversed(ordered(parent)) if name != parent]
    if parent != PACKAGE:
        names.sort()
    for name in names:
        folder = MODULES[name].name == "__init__.py"
        label = "  " * depth + name.rpartition(".")[2] + ("/" if folder else ".py")
        yield f"{label:24} {_summary(name)}"
        if folder:
            yield from _lines(name, depth + 1)


def text() -> str:
    """The tree: commands, then the rooms from the top floor down, each with its modules."""
    lines = [f"{PACKAGE + '/':24} {_summary(PACKAGE)}"]
    for module in MODULES:
        if is_command(module) and module != PACKAGE:
            lines.append(f"{'  ' + module.rpartition('.')[2] + '.py':24} {_summary(module)}")
    return "\n".join([*lines, *_lines(PACKAGE, 1)]) + "\n"


def parts(page: str) -> tuple[str, str, str]:
    """The page before its tree, the tree, and the page after it."""
    before, begin, rest = page.partition(BEGIN)
    written, end, after = rest.partition(END)
    return before + begin, written, end + after


def main() -> None:
    """Write the tree into the page."""
    before, _, after = parts(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + text() + after, encoding="utf-8")


if __name__ == "__main__":
    main()
