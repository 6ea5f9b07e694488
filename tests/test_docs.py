"""The pages of docs/: their links, commands and code, and that the site shows each of them."""

from __future__ import annotations

import doctest
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from documentation import PAGES, ROOT, blocks, links, page, run_python
from exported_network import export_network
from PIL import Image

from docs import architecture, site_hooks

NAMES = {path: str(path.relative_to(ROOT)) for path in PAGES}


def _site() -> dict[str, Any]:
    tree = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_links_lead_somewhere(path: Path) -> None:
    files = [link for link in links(path.read_text(encoding="utf-8")) if ":" not in link]
    assert [file for file in files if not (path.parent / file).exists()] == []


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_a_page_says_nothing_twice(path: Path) -> None:
    """Headings, points of a list, and rows that begin with code."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    said = [line for line in prose.splitlines() if line.startswith(("## ", "- ", "| `"))]
    assert [line for line in {*said} if said.count(line) > 1] == []


def test_the_site_shows_every_page_once() -> None:
    parts = [part for section in _site()["nav"] for part in section.values()]
    shown = [name for part in parts for entry in part for name in entry.values()]
    there = {file.name for file in (ROOT / "docs").glob("*.md")}
    assert sorted(shown) == sorted(there | {name.lower() for name in site_hooks.TOP_PAGES})


def test_the_site_loads_nothing_from_elsewhere() -> None:
    site = _site()
    assert site["theme"]["font"] is False
    assert not {"extra_css", "extra_javascript"} & site.keys()


def test_links_work_on_the_site() -> None:
    found = doctest.DocTestFinder().find(site_hooks.site_link, globs=vars(site_hooks))
    results = [doctest.DocTestRunner().run(test) for test in found]
    assert results and all(result.attempted and not result.failed for result in results)


def _commands(text: str) -> list[tuple[str, str]]:
    """(command, its words) of each `study.COMMAND` in code, a line or a cell of a table at most."""
    return re.findall(r"(?<![\w./])study\.([a-z]+)(?= |$)([^\n|`#]*)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=NAMES.get)
def test_no_command_names_a_flag_that_is_not_there(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for command, words in _commands(text):
        flags = {*re.findall(r"(?<!\S)--[a-z][a-z-]*", words)}
        if not flags or "data convert" in f"{command}{words}":
            continue
        name = "data.__main__" if command == "data" else command
        with pytest.raises(SystemExit):
            importlib.import_module(f"study.{name}").main(["--help"])
        known = {*re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)}
        assert flags <= known, (command, words)


def test_every_command_is_there() -> None:
    named = {name for path in PAGES for name in re.findall(r"-m study\.([a-z]+)", path.read_text())}
    assert {name for name in named if importlib.util.find_spec(f"study.{name}") is None} == set()


def test_the_scripts_in_bash_are_bash() -> None:
    for path in PAGES:
        for block in blocks(path.read_text(encoding="utf-8"), "bash"):
            done = subprocess.run(
                ["bash", "-n"], input=block, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (path.name, done.stderr, block)


def test_the_table_of_rooms_names_every_room() -> None:
    section = page("architecture.md").partition("## Where to look")[2].partition("\n## ")[0]
    named = set(re.findall(r"`study/([a-z_]+)/`", section))
    study = architecture.ROOT / "study"
    assert named == {room.name for room in study.iterdir() if room.name[0] != "_" and room.is_dir()}


def test_every_key_of_classes_yaml_is_described() -> None:
    from study.data.formats.folder_classes import ClassesFile

    section = page("own_data.md").partition("## The keys of classes.yaml")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    described = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert {*ClassesFile.model_fields, "names"} <= described


def test_the_search_space_that_is_shown_is_one(tmp_path: Path) -> None:
    from study.space.search_space import load_space

    (shown,) = [block for block in blocks(page("search.md"), "yaml") if "my_space" in block]
    file = tmp_path / "my_space.yaml"
    file.write_text(shown, encoding="utf-8")
    space = load_space(file)
    assert space.settings.num_trials == 16


def test_ci_makes_every_check_that_contributing_asks_for() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    checks = re.findall(r"^\.venv/bin/(?!python)[^#\n]*", contributing, flags=re.MULTILINE)
    assert len(checks) == 3
    for check in checks:
        assert f'step "{check.strip()}"' in script
    assert ".venv/bin/mkdocs build --strict" in script
    assert len(contributing.splitlines()) < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights",
    [{"scheme": "inverse_frequency", "exponent": 0.5}, {"scheme": "median_frequency"}],
    ids=lambda weights: weights["scheme"],
)
def test_the_winner_goes_into_a_training_loop_as_shown(
    tmp_path: Path, weights: dict[str, object]
) -> None:
    (training,) = [block for block in blocks(page("winner.md"), "python") if "build_loss" in block]
    (file,) = re.findall(r'open\("([^"]+)"\)', training)
    export = tmp_path / file
    export.parent.mkdir(parents=True)
    loss = {"class_weights": weights, "recall": None}
    tree = {"loss": loss, "optimizer": {"lr_scale": 0.5}}
    export.write_text(yaml.safe_dump(tree), encoding="utf-8")
    code = (
        "import torch\n"
        "num_classes, lr = 3, 0.1\n"
        "model, images = torch.nn.Conv2d(3, 3, 1), torch.randn(2, 3, 4, 5)\n"
        "target = torch.randint(0, 3, (2, 4, 5))\n"
        "train_labels = [torch.tensor([[0, 0, 0], [1, 2, 255]]), torch.tensor([[0, 1, 255]])]\n"
        f"{training}\nvalue.backward()\nloss.train(), loss.eval(), loss.terms()\n"
        "print(bool(model.weight.grad.abs().sum() > 0), optimizer.param_groups[0]['lr'])\n"
    )
    assert run_python(code, tmp_path) == ["True 0.05"]


@pytest.mark.slow
def test_the_winner_predicts_as_shown(tmp_path: Path) -> None:
    winner = blocks(page("winner.md"), "python")
    (predicting,) = [block for block in winner if 'study.load("' in block]
    (file,) = re.findall(r'study.load\("([^"]+)"\)', predicting)
    folder = (tmp_path / file).parent
    folder.mkdir(parents=True)
    export_network(folder)
    (picture,) = re.findall(r'predict\("([^"]+)"', predicting)
    Image.new("RGB", (100, 70), (90, 120, 30)).save(tmp_path / picture)
    code = (
        "import torch\n"
        "images = torch.zeros(2, 3, 32, 48)\n"
        f"{predicting}\n"
        "print(tuple(classes.shape), found.classes.shape, found.probabilities.shape[1:])\n"
    )
    assert run_python(code, tmp_path) == ["(2, 32, 48) (70, 100) (70, 100)"]
