"""docs/losses.md says what the losses are: its neutral config and its table of presets."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from study.losses import (
    PRESETS,
    LossConfig,
    class_weights,
    distillation,
    focal,
    jaccard,
    label_smoothing,
    logit_adjustment,
    max_pooling,
    ohem,
    pooling,
    recall,
)

PAGE = (Path(__file__).parents[1] / "docs" / "losses.md").read_text(encoding="utf-8")


def _rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, its head included, its rule left out."""
    section = PAGE[PAGE.index(f"\n## {heading}\n") :]
    table = re.findall(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [rows[0], *rows[2:]]


def test_the_table_holds_every_preset_as_it_is() -> None:
    _, *rows = _rows("Presets")
    shown = [
        (name.strip("`"), yaml.safe_load(config.strip("`")), source)
        for name, config, source in rows
    ]
    assert shown == [(name, preset.config, preset.source) for name, preset in PRESETS.items()]


def test_the_neutral_config_is_the_default_in_full() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert yaml.safe_load(block) == LossConfig().model_dump(mode="json")


AXES = (
    label_smoothing,
    focal,
    class_weights,
    recall,
    pooling,
    max_pooling,
    ohem,
    jaccard,
    logit_adjustment,
    distillation,
)


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.__name__.rpartition(".")[2])
def test_the_docstring_of_an_axis_says_what_is_needed_to_use_it(axis: ModuleType) -> None:
    parts = re.findall(
        r"^(Neutral|Normaliser|Source|Differs)s?: ", axis.__doc__ or "", re.MULTILINE
    )
    assert parts == ["Neutral", "Normaliser", "Source", "Differs"]


def test_every_axis_has_a_section_with_neutral_value_source_and_differences() -> None:
    axes = PAGE.partition("\n## Axes\n")[2].partition("\n## ")[0]
    head, *sections = re.split(r"^### ", axes, flags=re.MULTILINE)
    described = re.findall(r"^`(\w+)", "\n".join(sections), flags=re.MULTILINE)
    assert {*described} == LossConfig.model_fields.keys() - {"normalizer"}
    assert "`normalizer: weight`" in head
    for text in sections:
        for word in ("Normaliser:", "- Neutral ", "Source", "- Differs"):
            assert word in text, (word, text)
