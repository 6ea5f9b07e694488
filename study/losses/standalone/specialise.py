"""Makes the source of one loss out of that of all: decides its flags, leaves out what is unused.

Works on the text, by what the syntax tree says of its places, so that comments and layout stay.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

CALLED = ("__init__", "forward")  # the methods that torch and Python call


def specialise(
    source: str, flags: Mapping[str, bool], values: Mapping[str, str], roots: Collection[str]
) -> str:
    """The source of a module with its flags decided.

    Args:
        source: a module. A flag is a name that is assigned at its top level; an `if` that reads
            flags reads nothing else. Each parameter of a constructor has a line of its own.
        flags: the value of each flag.
        values: expressions for constants at the top level and for defaults of parameters, by name.
        roots: the names at the top level that are kept together with all that they use.
    """
    lines = source.splitlines(keepends=True)
    while branches := _decided(ast.parse("".join(lines)), flags):
        for node in reversed(branches):
            _take_branch(lines, node, _truth(node.test, flags) is True)
    _put_values(lines, values)
    while unused := _unused(ast.parse("".join(lines)), roots):
        for start, end in sorted(unused, reverse=True):
            del lines[start - 1 : end]
    return _with_even_gaps("".join(lines))


def _truth(test: ast.expr, flags: Mapping[str, bool]) -> bool | None:
    """What a test of flags comes to; None if it is of something else."""
    match test:
        case ast.Name(id=name):
            return flags.get(name)
        case ast.BoolOp(op=op, values=tests):
            found = [_truth(one, flags) for one in tests]
            if None in found:
                return None
            return all(found) if isinstance(op, ast.And) else any(found)
    return None


def _decided(node: ast.AST, flags: Mapping[str, bool]) -> list[ast.If]:
    """The outermost branches on flags, in the order of the text."""
    if isinstance(node, ast.If) and _truth(node.test, flags) is not None:
        return [node]
    return [found for child in ast.iter_child_nodes(node) for found in _decided(child, flags)]


def _take_branch(lines: list[str], node: ast.If, truth: bool) -> None:
    body_end, end = _end(node.body[-1]), _end(node)
    kept: list[str] = []
    if truth:
        kept = lines[_end(node.test) : body_end]
    elif node.orelse:
        kept = lines[body_end:end]
        while not kept[0].lstrip().startswith(("else:", "elif ")):
            kept.pop(0)
        if kept[0].lstrip().startswith("else:"):
            kept.pop(0)
        else:
            kept[0] = kept[0].replace("elif ", "if ", 1)
    text = textwrap.indent(textwrap.dedent("".join(kept)), " " * node.col_offset)
    lines[node.lineno - 1 : end] = text.splitlines(keepends=True)


def _put_values(lines: list[str], values: Mapping[str, str]) -> None:
    places: dict[str, ast.expr] = {}
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Assign) and node.col_offset == 0:
            places |= {one.id: node.value for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.FunctionDef):
            named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            places |= {name.arg: default for name, default in named if default is not None}
    for name in sorted(values, key=lambda name: places[name].lineno, reverse=True):
        place = places[name]
        start, end = place.lineno - 1, _end(place)
        before, after = lines[start][: place.col_offset], lines[end - 1][place.end_col_offset :]
        lines[start:end] = (before + values[name] + after).splitlines(keepends=True)


def _unused(tree: ast.Module, roots: Collection[str]) -> list[tuple[int, int]]:
    """The lines, first and last, of what is unused: the docstring, definitions, methods, their
    parameters by name, and the variables of their bodies."""
    users = Counter(_names(tree))
    found = []
    for node in tree.body:
        names = _defined(node)
        if names is not None and not names & {*roots} and not _used(node, names, users):
            found.append(_lines(node))
        elif isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            for method in methods:
                if method.name not in CALLED and not _used(method, {method.name}, users):
                    found.append(_lines(method))
                read = {name for statement in method.body for name in _names(statement)}
                parameters = method.args.kwonlyargs
                found += [_lines(one) for one in parameters if one.arg not in read]
                variables = (one for one in method.body if isinstance(one, ast.Assign))
                found += [_lines(one) for one in variables if not (_defined(one) or read) & read]
    return found


def _names(tree: ast.AST) -> Iterator[str]:
    """Every name that is read, as often as it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _used(definition: ast.stmt, names: set[str], users: Mapping[str, int]) -> bool:
    """Whether anything outside of a definition uses its names."""
    inside = Counter(_names(definition))
    return any(users[name] > inside[name] for name in names)


def _defined(node: ast.stmt) -> set[str] | None:
    """The names that a statement defines, none for the docstring; None where it has to stay."""
    match node:
        case ast.Expr():
            return set()
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=names):
            return {alias.name for alias in names}
        case ast.ImportFrom(module=module, names=names) if module != "__future__":
            return {alias.name for alias in names}
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return None


def _lines(node: ast.stmt | ast.arg) -> tuple[int, int]:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    return min([node.lineno, *(one.lineno for one in decorators)]), _end(node)


def _end(node: ast.stmt | ast.expr | ast.arg) -> int:
    assert node.end_lineno is not None
    return node.end_lineno


def _with_even_gaps(source: str) -> str:
    """Empty lines as `ruff format` leaves them: two before a definition, else one at most."""
    source = re.sub(r"\n\n\n+", "\n\n", source.strip("\n") + "\n")
    return re.sub(r"\n\n(?=(?:def|class) )", "\n\n\n", source)
