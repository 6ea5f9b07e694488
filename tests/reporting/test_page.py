"""The pages of reports in a browser: what their script does with tables and plots."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from study.reporting import plots
from study.reporting.page import document, drawing, sentence, sentences, table

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
COLUMNS = ("config", "trial", "stage", "seeds", "mIoU", "gain")
LINES = [
    ("beta", "t1", "search", "3", "9.10 ± 1.0\n+1.0", "-0.50"),
    ("alpha", "t2", "confirm", "12", "-", "+11.00"),
    ("gamma", "t3", "search", "5", "41.05 ± 0.2\n+2.0", "+2.00"),
]


def page_with(actions: str) -> str:
    """A page with a table, on which somebody has done something."""
    shown = document("page", [table(COLUMNS, LINES, pick=["stage"])])
    return shown.replace("</body>", f"<script>{actions}</script></body>")


def seen(page: str, place: Path) -> str:
    """What a browser makes of a page."""
    assert BROWSER is not None
    place.write_text(page, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{place}"], capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout


def rows(page: str) -> list[str]:
    """The first cells of the rows that are shown, from top to bottom."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    return re.findall(r"<tr(?! hidden)[^>]*><td>(\w+)</td>", body)


def test_without_a_script_a_table_is_in_its_own_order() -> None:
    assert rows(page_with("")) == ["beta", "alpha", "gamma"]


def test_lines_with_dashes_are_a_list() -> None:
    assert [*sentences(["a:", "- `b`", "- c", "d"])] == [
        "<p>a:</p>",
        "<ul><li><code>b</code></li><li>c</li></ul>",
        "<p>d</p>",
    ]


def test_text_is_escaped_and_names_are_marked() -> None:
    assert sentence("a < b in `x_<1>`") == "a &lt; b in <code>x_&lt;1&gt;</code>"
    assert "<td>&lt;b&gt;</td>" in table(("k",), [("<b>",)])


def test_a_drawing_tells_its_tips_and_loads_nothing() -> None:
    def drawn(told: str) -> str:
        made, axes = plots.figure(3, 2)
        axes[0, 0].plot([1, 2], [1, 2], gid=plots.tip(told))
        return drawing("lines", made)

    shown = drawn("a 'b' <c> & d\nnext")
    assert "<g class=\"tip\"><title>a 'b' &lt;c&gt; &amp; d\nnext</title>" in shown
    assert 'role="img" aria-label="lines"' in shown
    assert "http" not in shown and "<metadata" not in shown
    assert drawn("a 'b' <c> & d\nnext") == shown, "no ids by chance"
    for told in ('"', "\"'"):
        assert f"<title>{told}</title>" in html.unescape(drawn(told))


CLICK = "document.querySelectorAll('th')[{}].click();"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium here: the report's pages are not opened")
@pytest.mark.parametrize(
    ("actions", "order"),
    [
        (CLICK.format(0), ["alpha", "beta", "gamma"]),
        (CLICK.format(0) * 2, ["gamma", "beta", "alpha"]),
        (CLICK.format(0) * 3, ["beta", "alpha", "gamma"]),
        (CLICK.format(3), ["alpha", "gamma", "beta"]),
        (CLICK.format(4), ["gamma", "beta", "alpha"]),
        (CLICK.format(4) * 2, ["beta", "gamma", "alpha"]),
        (CLICK.format(4) + CLICK.format(5), ["alpha", "gamma", "beta"]),
        (
            "[...document.querySelectorAll('.choose label')]"
            ".find(one => one.textContent == 'confirm').firstChild.click();",
            ["beta", "gamma"],
        ),
    ],
)
def test_a_click_on_a_head_sorts_and_a_box_hides(
    tmp_path: Path, actions: str, order: list[str]
) -> None:
    assert rows(seen(page_with(actions), tmp_path / "page.html")) == order


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium here: the report's pages are not opened")
def test_the_pointer_on_a_line_shows_what_it_is(tmp_path: Path) -> None:
    made, axes = plots.figure(3, 2)
    axes[0, 0].plot([1, 2], [1, 2], gid=plots.tip("t0012 jaccard"))
    over = "document.querySelector('.tip').dispatchEvent(new PointerEvent('pointermove'));"
    page = document("page", [drawing("lines", made)])
    for actions, shown in (("", ' hidden="">'), (over, "(?!.*hidden).*>t0012 jaccard")):
        acted = page.replace("</body>", f"<script>{actions}</script></body>")
        assert re.search(f'<div id="tip"{shown}</div>', seen(acted, tmp_path / "page.html"))
