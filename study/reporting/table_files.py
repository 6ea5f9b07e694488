"""The tables of a report as CSV, Markdown and LaTeX, and the answer's numbers as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.analysis.answer import Answer, Confirmed
from study.analysis.classes import Classes
from study.core.errors import printable
from study.core.files import write_text
from study.core.names import ANSWER
from study.reporting.class_table import class_columns, class_rows
from study.reporting.tables import columns, conclusions, rows

TABLES = "tables"
_IN_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$",
    "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def write_tables(folder: Path, answer: Answer, found: Classes) -> None:
    """Write ``answer.json`` and, of each table that is not empty, ``tables/<name>.md`` and
    ``.tex``, as people read it, and ``.csv``, for programs: one figure a cell, as a fraction.

    ``confirmed`` has a row for each config and decision rule, ``classes`` one for each class.
    """
    shown = {
        "confirmed": (columns(answer), rows(answer), [*confirmed_records(answer)]),
        "classes": (
            class_columns(found, answer.reference_name),
            class_rows(found),
            [*_classes(found, answer.reference_name)],
        ),
    }
    for name, (head, lines, records) in shown.items():
        for suffix, text in (
            ("md", markdown(head, lines)),
            ("tex", latex(head, lines)),
            ("csv", csv_text(records)),
        ):
            path = folder / TABLES / f"{name}.{suffix}"
            if lines:
                write_text(path, text)
            else:
                path.unlink(missing_ok=True)
    write_text(folder / ANSWER, json.dumps(summary(answer), ensure_ascii=False, indent=1) + "\n")


def summary(answer: Answer) -> dict[str, Any]:
    """The answer for programs: who is best, its numbers by flat keys, its sentences, its table.

    The numbers are ``<role>/<metric>`` (mean over seeds, in 0..1), ``.../sd``, and ``.../gain``,
    ``gain_low``, ``gain_high``, ``p`` against the reference, for the roles ``best_miou``,
    ``best_macc`` and ``reference``, and ``<role>/seeds``. Those that are undefined are left out.
    """
    roles = {
        "best_miou": answer.config(answer.best_miou),
        "best_macc": answer.config(answer.best_macc),
        "reference": answer.reference,
    }
    numbers = dict(_numbers(roles, answer))
    return {
        "study": answer.study,
        "task": answer.task,
        "space": answer.space,
        "confirmed": answer.confirmed,
        **{role: config.label if config else None for role, config in roles.items()},
        "metrics": {key: value for key, value in numbers.items() if math.isfinite(value)},
        "conclusions": [*map(printable, conclusions(answer))],
        "table": markdown(columns(answer), rows(answer)) if answer.configs else "",
    }


def _numbers(roles: Mapping[str, Confirmed | None], answer: Answer) -> Iterator[tuple[str, float]]:
    for role, config in roles.items():
        if config is None:
            continue
        yield f"{role}/seeds", float(len(config.seeds))
        for key in (key for rule in answer.rules for key in (rule.test_miou, rule.test_macc)):
            for name, value in _figures(config, key).items():
                yield (f"{role}/{key}/{name}" if name else f"{role}/{key}"), value


def _figures(config: Confirmed, key: str) -> dict[str, float]:
    """Mean, spread and comparison of a metric; NaN where there is none."""
    against, nothing = config.versus.get(key), math.nan
    interval = against.interval if against else None
    return {
        "": config.mean(key),
        "sd": config.sd(key),
        "gain": against.difference if against else nothing,
        "gain_low": interval.low if interval else nothing,
        "gain_high": interval.high if interval else nothing,
        "p": nothing if against is None or against.p is None else against.p,
    }


def confirmed_records(answer: Answer) -> Iterator[dict[str, Any]]:
    """The rows of ``tables/confirmed.csv``."""
    for config in answer.configs:
        for rule in answer.rules:
            record: dict[str, Any] = {
                "config": config.label,
                "trial": config.source,
                "seeds": len(config.seeds),
                "rule": rule.name,
                "val_miou": config.mean(rule.val_miou),
                "val_macc": config.mean(rule.val_macc),
            }
            for key, short in ((rule.test_miou, "test_miou"), (rule.test_macc, "test_macc")):
                for name, value in _figures(config, key).items():
                    record[f"{short}_{name}" if name else short] = value
            yield record


def _classes(found: Classes, reference: str) -> Iterator[dict[str, Any]]:
    for row in found.rows:
        record: dict[str, Any] = {"class": row.name, "train_fraction": row.share}
        record |= {f"{split}_images": count for split, count in row.images.items()}
        for who, figures in ((reference, row.reference), ("winner", row.winner)):
            for metric in ("iou", "recall", "precision"):
                value = math.nan if figures is None else getattr(figures, metric)
                record[f"{who.replace(' ', '_')}_{metric}"] = value
        yield {**record, "missed": row.missed}


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    shown = [[re.sub(r"([\\|`*_<>\[\]])", r"\\\1", _line(cell)) for cell in row] for row in lines]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [list(head), rule, *shown])


def latex(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A ``tabular`` of LaTeX, without packages."""
    shown = [" & ".join(map(_latex, row)) for row in [head, *lines]]
    first, *others = (f"{row} \\\\\n" for row in shown)
    layout = "l" + "r" * (len(head) - 1)
    return (
        f"\\begin{{tabular}}{{{layout}}}\n\\hline\n{first}\\hline\n{''.join(others)}\\hline\n"
        "\\end{tabular}\n"
    )


def _latex(cell: str) -> str:
    return "".join(_IN_LATEX.get(letter, letter) for letter in _line(cell))


def _line(cell: str) -> str:
    return printable(cell.replace("\n", "; "))


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV; what a record lacks is empty."""
    buffer = io.StringIO()
    if records:
        columns = list(dict.fromkeys(key for row in records for key in row))
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: csv_cell(value) for key, value in row.items()} for row in records])
    return buffer.getvalue()


def csv_cell(value: Any) -> Any:
    """Text without control characters, and such that no spreadsheet takes it for a formula; an
    undefined number as an empty cell."""
    if isinstance(value, float) and math.isnan(value):
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
