"""The numbers and the picture of README.md and docs/ are those of the recorded study."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from docs import demo_picture, numbers
from docs.numbers import BLOCK, ROOT, Recorded, filled, pages
from study.core.names import CONFIRM
from study.reporting.exports import FOLDER, wanted_exports

KNOWN = {"gain": "+1.00 points", "table": "| a |\n|---|\n| 1 |"}


@pytest.fixture(scope="module")
def found() -> Recorded:
    return numbers.recorded()


@pytest.fixture(scope="module")
def known(found: Recorded) -> dict[str, str]:
    return numbers.blocks(found)


@pytest.mark.slow
def test_no_page_states_another_number_than_the_recorded_one(known: dict[str, str]) -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    old = [str(page.relative_to(ROOT)) for page, text in texts.items() if _new(page, known) != text]
    assert old == [], "run: python -m docs.numbers"
    assert BLOCK.search("".join(texts.values()))


def _new(page: Path, known: dict[str, str]) -> str:
    return filled(page.read_text(encoding="utf-8"), known, str(page.relative_to(ROOT)))


@pytest.mark.slow
def test_the_blocks_state_what_the_ledger_holds(found: Recorded, known: dict[str, str]) -> None:
    confirmed = found.state.completed(CONFIRM)
    means = []
    for source in ("t0000", "t0021"):
        values = [
            one.last["test/tuned/miou"]
            for one in confirmed
            if one.source == source and one.budget == 1
        ]
        means.append(100 * sum(values) / len(values))
    base, best = means
    assert known["miou"] == f"{base:.2f} % and {best:.2f} %"
    assert known["gain-miou"].startswith(f"{best - base:+.2f} [")
    assert f"| {known['gain-miou']} of mIoU |" in known["promise"]
    assert known["gain-miou"].removesuffix(" points") in known["results"]
    assert f"{len(found.state.trials)} trials" in known["cost"]


@pytest.mark.slow
def test_the_table_of_a_teacher_states_what_its_ledger_holds(
    found: Recorded, known: dict[str, str]
) -> None:
    state, _ = found.distilled
    for row in known["distilled"].splitlines()[2:]:
        label = row.removeprefix("| ").split(" ")[0]
        (source,) = (
            one.id
            for one in state.trials.values()
            if one.label == label and one.stage == "baseline"
        )
        confirmed = [
            one for one in state.completed(CONFIRM) if one.source == source and one.budget == 1
        ]
        mean = sum(one.last["test/tuned/miou"] for one in confirmed) / len(confirmed)
        assert len(confirmed) == 3 and f" {100 * mean:.2f} ± " in row.split("|")[2]
    teacher = state.trials["t0000"].last["val/tuned/miou"]
    assert known["teacher"] == f"{100 * teacher:.1f} %"


@pytest.mark.slow
def test_the_picture_is_that_of_the_recorded_study(found: Recorded) -> None:
    with Image.open(demo_picture.PATH) as picture:
        shown = {key: picture.info.get(key) for key in ("study", "gain")}
    assert shown == demo_picture.stated(found.answer), "run: python -m docs.demo_picture"


@pytest.mark.slow
def test_every_export_of_the_recorded_study_was_trained_again(found: Recorded) -> None:
    wanted = wanted_exports(Path(FOLDER), found.answer)
    names = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in wanted}
    assert {row["export"] for row in found.reproduced} == names, "run: python -m docs.reproduced"
    assert found.state.study is not None
    commit = found.state.study.environment["commit"]
    assert {row["recorded_at"] for row in found.reproduced} == {commit}


def test_a_value_is_written_into_its_line_and_a_table_between_blank_lines() -> None:
    text = "It is <!-- numbers: gain -->+2.00 points<!-- /numbers -->.\n\n" + _block("table")
    assert filled(text, KNOWN, "a.md") == (
        "It is <!-- numbers: gain -->+1.00 points<!-- /numbers -->.\n\n"
        "<!-- numbers: table -->\n\n| a |\n|---|\n| 1 |\n\n<!-- /numbers -->"
    )


def test_what_is_filled_is_left_as_it_is() -> None:
    once = filled(f"It is {_block('gain')}.\n\n{_block('table')}\n", KNOWN, "a.md")
    assert filled(once, KNOWN, "a.md") == once


def _block(name: str) -> str:
    return f"<!-- numbers: {name} --><!-- /numbers -->"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"a\nb {_block('gian')}", "a.md:2: unknown block 'gian' (known: gain, table)"),
        (f"a\n  {_block('gain')}", "a.md:2: block 'gain' begins its line"),
        (f"a <!-- numbers: gain -->\nb {_block('gain')}", "a.md:1: block 'gain' has no"),
        ("a <!-- numbers: gain -->+1", "a.md:1: 0 blocks, 1 times <!-- numbers:"),
        (f"a {_block('gain')}\n<!-- /numbers -->", "a.md:2: 1 blocks, 2 times <!-- /numbers -->"),
    ],
    ids=["unknown", "begins a line", "not ended before the next", "not ended", "not begun"],
)
def test_a_wrong_marker_is_named_with_its_line(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^a\.md") as raised:
        filled(text, KNOWN, "a.md")
    assert str(raised.value).startswith(error)
