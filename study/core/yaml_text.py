"""Resolved configs as YAML text that reproduces every number exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written out."""
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    """Write the shortest digits that give the same float, in a form that is read as a float.

    YAML 1.1 reads ``1e-05`` as text: a point and a signed exponent make it a number.
    """
    if math.isnan(value):
        text = ".nan"
    elif math.isinf(value):
        text = ".inf" if value > 0 else "-.inf"
    else:
        text = repr(value)
        digits, exponent_mark, exponent = text.partition("e")
        if exponent_mark:
            digits = digits if "." in digits else f"{digits}.0"
            exponent = exponent if exponent[0] in "+-" else f"+{exponent}"
            text = f"{digits}e{exponent}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _list(dumper: yaml.SafeDumper, value: Sequence[Any]) -> yaml.SequenceNode:
    """Write a list of scalars on one line."""
    plain = not any(isinstance(item, dict | list | tuple) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=plain)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(tuple, _list)


def as_yaml(tree: Mapping[str, Any]) -> str:
    """Write YAML that `yaml.safe_load` reads as the same values, floats to the last bit."""
    return yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def number_hint(text: Any) -> str:
    """`write 1.0e-3` for text that was meant as a number, else an empty text.

    YAML 1.1 reads a number with an exponent only if it has a dot and the exponent a sign.
    """
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(value):
        return "write .inf" if value == math.inf else ""
    match = re.fullmatch(r"\s*([-+]?[0-9_.]+)[eE]([-+]?)([0-9]+)\s*", text)
    if not match:
        return f"write {text.strip()} without quotes"
    mantissa, sign, exponent = match.groups()
    return f"write {mantissa if '.' in mantissa else mantissa + '.0'}e{sign or '+'}{exponent}"
