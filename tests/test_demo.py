"""The recorded study that comes with the package, and the command that shows it."""

from __future__ import annotations

import subprocess
import sys
import webbrowser
from pathlib import Path

import numpy as np
import pytest

from study.demo import main
from study.ledger.journal import LEDGER
from study.reporting import recorded
from study.reporting.pictures import IMAGE, NEW, OLD, TRUTH, pack, unpack

MOST_BYTES = 1_500_000  # that the recorded study may add to the package


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is opened in a browser."""
    pages: list[str] = []
    monkeypatch.setattr(webbrowser, "open", pages.append)
    return pages


def error_of(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with."""
    assert main(["--out", str(out), "--no-browser"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_the_recorded_study_is_small() -> None:
    assert recorded.ARCHIVE.stat().st_size < MOST_BYTES


def test_its_pictures_show_the_rarest_class_to_both_networks() -> None:
    drawn = recorded.recorded_pictures()
    rare = [row for row in drawn.rows if row.kind == "rare"]
    assert rare and all("SignSymbol" in row.why for row in rare)
    assert {IMAGE, TRUTH, OLD, NEW} <= set(rare[0].panels)
    colour = dict(drawn.classes)["SignSymbol"]
    assert any((rare[0].panels[TRUTH] == colour).all(-1).flat)


def test_packed_pictures_are_unpacked_as_they_were() -> None:
    drawn = recorded.recorded_pictures()
    again = unpack(pack(drawn))
    assert (again.rule, again.classes, again.differences, again.trials) == (
        drawn.rule,
        drawn.classes,
        drawn.differences,
        drawn.trials,
    )
    for one, other in zip(drawn.rows, again.rows, strict=True):
        assert (one.name, one.kind, one.why, one.classes) == (
            other.name,
            other.kind,
            other.why,
            other.classes,
        )
        assert list(one.panels) == list(other.panels)
        assert all(np.array_equal(one.panels[name], other.panels[name]) for name in one.panels)


@pytest.mark.slow
def test_the_command_says_the_answer_and_opens_the_page_where_there_is_a_display(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    opened: list[str],
) -> None:
    folder = tmp_path / "demo"
    page = folder / "report.html"
    state, found = recorded.unpack_recorded(folder)
    monkeypatch.setattr(recorded, "write_recorded", lambda _: (state, found, page))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for display, flags, pages in (("", [], 0), (":0", ["--no-browser"], 0), (":0", [], 1)):
        monkeypatch.setenv("DISPLAY", display)
        assert main(["--out", str(folder), *flags]) == 0
        assert len(opened) == pages
    assert opened == [page.as_uri()]
    printed = capsys.readouterr().out
    assert "is best by val" in printed and "beyond the spread of seeds" in printed
    assert f"report: {page}" in printed


@pytest.mark.slow
def test_the_page_has_the_ladder_and_the_pictures_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from study.demo import main; "
        "code = main(['--no-browser']); print(code, sorted({'torch', 'ray'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    folder = tmp_path / "study-demo"
    assert (folder / "exports" / "best_miou.yaml").is_file()
    page = (folder / "report.html").read_text(encoding="utf-8")
    for part in ("default cross entropy at the argmax", "tuned decision rule", "at its rule"):
        assert part in page
    assert page.count('<section class="row">') == len(recorded.recorded_pictures().rows)


def test_a_folder_that_holds_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LEDGER).write_text("another study\n", encoding="utf-8")
    assert error_of(tmp_path, capsys).startswith(f"--out: '{tmp_path}' holds something else")
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER]


def test_a_file_in_place_of_the_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert "--out: " in error_of(tmp_path / "file", capsys)
    assert "--out: cannot write into folder" in error_of(tmp_path / "file" / "below", capsys)


@pytest.mark.parametrize("kept", [None, 0, 1000, 100_000], ids=str)
def test_a_damaged_package_is_one_line(
    kept: int | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = tmp_path / "archive"
    if kept is not None:
        archive.write_bytes(recorded.ARCHIVE.read_bytes()[:kept])
    monkeypatch.setattr(recorded, "ARCHIVE", archive)
    line = error_of(tmp_path / "out", capsys)
    assert line == f"{archive}: cannot read the recorded study; install the package again"
    assert not (tmp_path / "out").exists()
