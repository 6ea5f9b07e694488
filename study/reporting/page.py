"""A page of HTML that loads nothing: its style, its script, its tables, and plots that tell what is
under the pointer.

All of it is readable without the script, which sorts tables, hides columns and rows, and shows what
a line of a plot is at once; a browser without it shows that after a moment.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from study.core.errors import printable_lines
from study.reporting.plots import TIP, literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
LEAST_WIDTH = 600  # pixels to which a narrow window shrinks a plot, which it scrolls then
STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --line: #ddd; --block: #f6f6f6;
        --best: #eefaf2; --note: #a15c00; --answer: #12a150; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #17191c; --line: #44474c; --block: #24272b; --best: #173a26;
          --note: #e9a84c; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em;
       color: var(--text); background: var(--page); }
h1, h2, p { overflow-wrap: anywhere; }
.answer { border-left: 4px solid var(--answer); padding-left: 1em; font-size: 17px; }
.beware { border-left: 4px solid var(--note); padding-left: 1em; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
td:not(:first-child):not(:last-child) { white-space: pre; }
td:last-child { white-space: pre-line; }
.facts th, .facts td { text-align: left; vertical-align: top; }
.facts td:not(:first-child):not(:last-child) { white-space: pre-line; }
.facts td { white-space: pre-line; min-width: 14em; }
.facts td:first-child { min-width: 0; font-weight: 600; }
tr.best { font-weight: 600; background: var(--best); }
.live th { cursor: pointer; }
th[aria-sort=ascending]::after { content: " \\25b2"; }
th[aria-sort=descending]::after { content: " \\25bc"; }
.choose { font-size: 13px; margin-bottom: -.6em; }
.choose label { display: inline-block; margin-right: 1em; }
img { max-width: 100%; display: block; }
.plot svg { display: block; max-width: 100%; height: auto; margin: 1em 0; background: #fff;
            border-radius: 6px; }
.tip:hover path { stroke-width: 3.5px !important; }
.tip:hover path.near { stroke-width: 12px !important; }
svg:has(.tip:hover) .tip:not(:hover) { opacity: .25; }
#tip { position: absolute; max-width: 28em; padding: 4px 8px; font-size: 12px; pointer-events: none;
       background: #222; color: #fff; border-radius: 4px; white-space: pre-line; z-index: 1; }
pre { background: var(--block); padding: 1em; overflow-x: auto; font-size: 12px; }
.scroll { overflow-x: auto; }
.note { color: var(--note); }
.note li { font-size: 13px; }
.key i { display: inline-block; width: .9em; height: .9em; margin: 0 .4em 0 1em; }
.key span { white-space: nowrap; }
.row div { display: grid; grid-template-columns: repeat(5, 1fr); gap: 8px; }
.row figure { margin: 0; }
.row img { width: 100%; image-rendering: pixelated; }
.row figcaption { font-size: 12px; }
@media (max-width: 600px) {
  .row div { grid-template-columns: repeat(2, 1fr); }
  h1 { font-size: 1.4em; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  :root { color-scheme: light; --text: #000; --page: #fff; --line: #bbb; --block: #f6f6f6;
          --best: #eefaf2; --note: #a15c00; }
  body { max-width: none; margin: 0; padding: 0; print-color-adjust: exact; }
  .choose, #tip { display: none; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  table { font-size: 9px; width: 100%; }
  th, td { padding: 2px 4px; }
  td:first-child, td:last-child { overflow-wrap: anywhere; }
  td:first-child { min-width: 8em; }
  td:not(:first-child):not(:last-child) { white-space: pre-line; }
  .facts td { min-width: 0; }
  thead { display: table-header-group; }
  tr, img, svg, .row, .answer { break-inside: avoid; }
  h2 { break-after: avoid; }
  .plot svg { min-width: 0 !important; max-height: 170mm; }
}
"""
SCRIPT = """
for (const table of document.querySelectorAll("table.data")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  const text = (row, at) => row.cells[at].textContent.trim();
  const missing = told => told === "" || told === "-";
  heads.forEach((head, at) => {
    const told = rows.map(row => text(row, at)).filter(one => !missing(one));
    const counts = told.length > 0 && told.every(one => /^[-+]?[0-9]/.test(one));
    const steps = [...(counts ? ["descending", "ascending"] : ["ascending", "descending"]), null];
    const sort = () => {
      const way = steps[(steps.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      heads.forEach(one => one.removeAttribute("aria-sort"));
      if (way) head.setAttribute("aria-sort", way);
      const sign = way === "descending" ? -1 : 1;
      const order = (one, other) => {
        const [a, b] = [text(one, at), text(other, at)];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return sign * (counts ? parseFloat(a) - parseFloat(b) : a.localeCompare(b));
      };
      body.append(...(way ? [...rows].sort(order) : rows));
    };
    head.tabIndex = 0;
    head.title = "sort";
    head.onclick = sort;
    head.onkeydown = event => { if (event.key === "Enter") sort(); };
  });
  table.classList.add("live");
  if (heads.length < 6) continue;
  const choose = document.createElement("details");
  choose.className = "choose";
  choose.append(Object.assign(document.createElement("summary"), {textContent: "show, hide"}));
  const line = (title, options) => {
    const place = document.createElement("div");
    place.append(title + ": ");
    for (const [name, apply] of options) {
      const label = document.createElement("label"), box = document.createElement("input");
      Object.assign(box, {type: "checkbox", checked: true, onchange: () => apply(box.checked)});
      label.append(box, name);
      place.append(label);
    }
    choose.append(place);
  };
  line("columns", heads.slice(1).map((head, at) => [head.textContent, shown => {
    for (const row of table.rows) row.cells[at + 1].hidden = !shown;
  }]));
  const out = new Set();
  heads.forEach((head, at) => {
    if (!head.hasAttribute("data-pick")) return;
    const names = [...new Set(rows.map(row => text(row, at)))];
    line(head.textContent, names.map(name => [name, shown => {
      shown ? out.delete(at + name) : out.add(at + name);
      for (const row of rows)
        row.hidden = heads.some((_, one) => out.has(one + text(row, one)));
    }]));
  });
  table.parentNode.before(choose);
}
const box = Object.assign(document.createElement("div"), {id: "tip", hidden: true});
document.body.append(box);
for (const tip of document.querySelectorAll("svg .tip")) {
  const title = tip.querySelector("title"), said = title.textContent;
  title.remove();
  tip.setAttribute("aria-label", said);
  const path = tip.querySelector(":scope > path");
  if (path && path.style.fill === "none") {
    const near = path.cloneNode();
    near.setAttribute("class", "near");
    near.style.stroke = "transparent";
    near.style.strokeWidth = "12px";
    tip.append(near);
  }
  tip.onpointermove = event => {
    box.textContent = said;
    box.hidden = false;
    const room = document.documentElement.clientWidth - box.offsetWidth - 8;
    box.style.left = Math.max(0, Math.min(event.pageX + 14, room)) + "px";
    box.style.top = event.pageY + 14 + "px";
  };
  tip.onpointerleave = () => { box.hidden = true; };
}
"""


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page. title: plain text; parts: HTML."""
    view = '<meta name="viewport" content="width=device-width">'
    head = f'<meta charset="utf-8">{view}<title>{escaped(title)}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>\n{body}\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def escaped(text: str) -> str:
    """Text as HTML shows it."""
    return html.escape(printable_lines(text))


def sentence(line: str) -> str:
    """A line of text as HTML; what is in backticks is a name."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escaped(line))


def sentences(lines: Iterable[str]) -> Iterator[str]:
    """Lines of text as paragraphs, those that begin with a dash as items of a list."""
    for dashed, group in groupby(lines, key=lambda line: line.startswith("- ")):
        if dashed:
            yield f"<ul>{''.join(f'<li>{sentence(line[2:])}</li>' for line in group)}</ul>"
        else:
            yield from (f"<p>{sentence(line)}</p>" for line in group)


def table(
    columns: Sequence[str],
    lines: Iterable[Sequence[str]],
    best: Sequence[bool] = (),
    *,
    pick: Collection[str] = (),
) -> str:
    """A table that is sorted by a click on its heads. best: of each line, whether it is marked.
    pick: columns by whose values rows can be hidden."""
    head = "".join(
        f"<th{' data-pick' * (column in pick)}>{escaped(column)}</th>" for column in columns
    )
    return _table(f"<thead><tr>{head}</tr></thead>", lines, best, "data")


def facts(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose rows are different things, each with its name in the first cell."""
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    return _table(f"<thead><tr>{head}</tr></thead>", lines, (), "facts")


def _table(head: str, lines: Iterable[Sequence[str]], best: Sequence[bool], kind: str) -> str:
    body = ""
    for index, line in enumerate(lines):
        mark = ' class="best"' if index < len(best) and best[index] else ""
        body += f"<tr{mark}>" + "".join(f"<td>{escaped(cell)}</td>" for cell in line) + "</tr>\n"
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>\n{body}</tbody></table></div>'


def image(alt: str, content: bytes) -> str:
    """A PNG inside the page."""
    code = base64.b64encode(content).decode()
    return f'<img alt="{escaped(alt)}" src="data:image/png;base64,{code}">'


def png(made: Figure) -> bytes:
    """A figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    made.set_dpi(DPI)
    with literal(made):  # `savefig` would draw all of it twice, the first time for its layout alone
        FigureCanvasAgg(made).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def drawing(name: str, made: Figure) -> str:
    """A figure as SVG inside the page; artists with a tip tell it under the pointer."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with literal(made), rc_context({"svg.hashsalt": name}):
        made.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    tip = rf"""<g id=(["']){TIP}(.*?)\1>"""
    text = re.sub(tip, r'<g class="tip"><title>\2</title>', text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    width = min(LEAST_WIDTH, 96 * made.get_size_inches()[0])
    label = f'<svg role="img" aria-label="{escaped(name)}" style="min-width: {width:.0f}px"'
    return f'<div class="scroll plot">{text.replace("<svg", label, 1)}</div>'
