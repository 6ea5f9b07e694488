"""The examples in all docstrings run as they are shown, and the site shows them as code."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import study

ROOT = Path(study.__file__).parents[1]


def _sources() -> dict[str, str]:
    """The text of every module, by its name."""
    files = sorted((ROOT / "study").rglob("*.py"))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): (
            file.read_text(encoding="utf-8")
        )
        for file in files
    }


SOURCES = _sources()


@pytest.mark.parametrize("name", [name for name, text in SOURCES.items() if ">>> " in text])
def test_an_example_runs_as_it_is_shown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_CACHE_DIR", str(tmp_path))
    found = doctest.DocTestFinder().find(import_module(name), globs={})
    shown: list[str] = []
    ran = [doctest.DocTestRunner().run(test, out=shown.append) for test in found if test.examples]
    assert ran and shown == []


def test_examples_are_a_section_that_the_site_knows() -> None:
    """`Examples:`; any other heading makes the code text, in which brackets are links."""
    assert [name for name, text in SOURCES.items() if re.search(r"^ *Example:$", text, re.M)] == []
