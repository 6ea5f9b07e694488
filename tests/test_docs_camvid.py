"""The tables of CamVid in docs/results.md are those of docs/camvid.csv, by other arithmetic."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest

from docs import camvid
from docs.camvid import ARGMAX_COLUMNS, CLASS_IOU, HEADS, METRICS, Table
from docs.numbers import BLOCK

CLASSES = (f"{CLASS_IOU}road", f"{CLASS_IOU}sign")
TUNED_MIOU = "test/tuned/miou"


def a_row(trial: str, seed: int, level: float, **names: str) -> dict[str, str]:
    """A row whose metrics lie about a level; each differs from the others."""
    metrics = {key: f"{level + 0.01 * k:.6f}" for k, key in enumerate(METRICS)}
    ious = {key: f"{level / (2 + k):.6f}" for k, key in enumerate(CLASSES)}
    start = {"config": trial, "trial": trial, "rate": "1.0", "role": "", "seed": str(seed)}
    return {**start, "budget": "1", "without": "", **names, **metrics, **ious}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    tuned = {"config": "ce lr x2", "rate": "2.0", "role": "tuned cross entropy"}
    plain = {"config": "ce", "role": "default cross entropy"}
    jml = {"config": "jml"}
    rows = [
        *(a_row("t1", seed, 0.40 + 0.01 * seed, **tuned) for seed in (1, 2, 3)),
        *(a_row("t0", seed, 0.38 + 0.012 * seed, **plain) for seed in (1, 2, 3, 4)),
        *(a_row("t2", seed, 0.43 + 0.011 * seed, **jml) for seed in (1, 2, 3)),
        *(a_row("t2", seed, 0.50 + 0.01 * seed, budget="4", **jml) for seed in (1, 2)),
        *(a_row("t1", seed, 0.49 + 0.01 * seed, budget="4", **tuned) for seed in (1, 2)),
        *(a_row("t2", seed, 0.42 + 0.012 * seed, without="jaccard", **jml) for seed in (1, 2, 3)),
    ]
    path = tmp_path / "camvid.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("# some day, somewhere\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return camvid.read(path)


def cells(lines: list[str], name: str) -> list[str]:
    (line,) = (line for line in lines if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_best_by_val_comes_first_on_the_seeds_that_all_have(table: Table) -> None:
    assert [config.trial for config in table.configs] == ["t2", "t1", "t0"]
    assert all(list(config.seeds) == [1, 2, 3] for config in table.configs)
    assert table.recorded == "some day, somewhere"
    assert table.reference.trial == "t1"


def test_a_cell_has_mean_and_sd_and_the_difference_to_tuned_cross_entropy(table: Table) -> None:
    lines = list(camvid.main_table(table))
    assert len(lines) == 2 + 3
    found = cells(lines, "jml")[1]
    values = [0.43 + 0.011 * seed + 0.01 * METRICS.index(TUNED_MIOU) for seed in (1, 2, 3)]
    assert found.startswith(f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f}<br>+3.20 [")
    assert "<br>" not in cells(lines, "ce lr x2")[1], "the reference is not compared with itself"
    more = list(camvid.more_table(table))
    assert len(cells(more, "jml")) == 1 + len(ARGMAX_COLUMNS) - 2 + 1
    worst = fmean((0.43 + 0.011 * seed) / 3 for seed in (1, 2, 3))
    assert cells(more, "jml")[-1].startswith(f"{100 * worst:.1f} ±")


def test_a_loss_is_compared_with_cross_entropy_at_its_own_rate(table: Table) -> None:
    lines = list(camvid.rates_table(table))
    place = {line.split("|")[1].strip(): number for number, line in enumerate(lines)}
    assert (
        place["ce (default cross entropy)"] < place["jml"] < place["ce lr x2 (tuned cross entropy)"]
    )
    gains = [0.05 + (0.011 - 0.012) * seed for seed in (1, 2, 3)]
    assert cells(lines, "jml")[2].startswith(f"{100 * fmean(gains):+.2f} [")


def test_longer_budgets_and_parts_are_paired_by_seed(table: Table) -> None:
    lines = list(camvid.longer_table(table))
    short, long = cells(lines, "jml | x1"), cells(lines, "jml | x4")
    assert "<br>+3.20 [" in short[2] and short[-1] == ""
    assert long[2].endswith("<br>+1.00"), "equal gains have no spread"
    more = fmean(0.50 + 0.01 * seed - (0.43 + 0.011 * seed) for seed in (1, 2))
    assert long[-1].startswith(f"{100 * more:+.2f} [")
    gains = [0.01 + (0.011 - 0.012) * seed for seed in (1, 2, 3)]
    parts = list(camvid.parts_table(table))
    assert cells(parts, "jml without jaccard")[1].startswith(f"{100 * fmean(gains):+.2f} [")


def test_the_gain_of_a_network_and_that_of_the_best_loss(table: Table) -> None:
    """The larger of two networks is 0.1 better at either budget."""

    def better(seeds: camvid.BySeed) -> camvid.BySeed:
        return {seed: {key: one + 0.1 for key, one in of.items()} for seed, of in seeds.items()}

    configs = [replace(config, seeds=better(config.seeds)) for config in table.configs]
    longer = {key: better(seeds) for key, seeds in table.longer.items()}
    pretrained = replace(table, configs=tuple(configs), longer=longer)
    lines = list(camvid.networks_table(table, pretrained))
    reference = fmean(0.40 + 0.01 * seed + 0.01 * METRICS.index(TUNED_MIOU) for seed in (1, 2, 3))
    assert cells(lines, "x1")[1] == (
        f"{100 * reference:.1f} -> {100 * reference + 10:.1f}<br>+10.00"
    )
    assert cells(lines, "x4")[1].endswith("<br>+10.00")
    assert camvid.gain(table).startswith("+3.20 [")
    assert camvid.gain(table, 4) == "+1.00"
    assert camvid.gain(pretrained, 4) == "+1.00"


@pytest.mark.slow
@pytest.mark.parametrize("file", [camvid.CSV, camvid.PRETRAINED], ids=lambda file: file.stem)
def test_the_committed_figures_are_what_the_page_says(file: Path) -> None:
    table = camvid.read(file)
    page = (camvid.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    with file.open(encoding="utf-8", newline="") as opened:
        assert opened.readline().strip() == f"# {table.recorded}"
        rows = [row for row in csv.DictReader(opened) if row["budget"] == "1"]
    rows = [row for row in rows if not row["without"]]
    assert set(HEADS) <= set(rows[0])
    seeds = {row["trial"]: {r["seed"] for r in rows if r["trial"] == row["trial"]} for row in rows}
    shared = set.intersection(*seeds.values())
    for row in rows:
        mine = [r for r in rows if r["trial"] == row["trial"] and r["seed"] in shared]
        values = [100 * float(r[TUNED_MIOU]) for r in mine]
        assert f"{fmean(values):.1f} ± {stdev(values):.1f}" in page, row["config"]


TRIPLE = re.compile(r"([+-]\d+\.\d) \[([+-]\d+\.\d), ([+-]\d+\.\d)\]")
IN_TABLE = re.compile(r"([+-]\d+\.\d\d) \[([+-]\d+\.\d\d), ([+-]\d+\.\d\d)\]")


@pytest.mark.slow
def test_the_intervals_in_the_text_are_those_of_the_tables() -> None:
    page = (camvid.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    text = BLOCK.sub("", page[: page.index("## What a teacher gives")])
    table, pretrained = camvid.read(), camvid.read(camvid.PRETRAINED)
    parts = (
        camvid.main_table,
        camvid.more_table,
        camvid.rates_table,
        camvid.longer_table,
        camvid.parts_table,
    )
    known = [
        tuple(map(float, found))
        for part in parts
        for of in (table, pretrained)
        for found in IN_TABLE.findall("\n".join(part(of)))
    ]
    stated = [tuple(map(float, found)) for found in TRIPLE.findall(text)]
    assert len(stated) >= 8
    for triple in stated:
        near = [
            of for of in known if all(abs(a - b) <= 0.0501 for a, b in zip(of, triple, strict=True))
        ]
        assert near, f"{triple} is in no table"
    assert f"{mean_of(table.reference, TUNED_MIOU)} points of mIoU" in text


def mean_of(config: camvid.Config, metric: str) -> str:
    return f"{100 * fmean(config.values(metric).values()):.1f}"
