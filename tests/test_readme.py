"""The README is short, and what it says is there: its commands, its links and its code."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from documentation import ROOT, blocks, links, run_python

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 180


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    first, second = (block.strip() for block in blocks(README, "bash")[:2])
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert commands == [first, second]
    assert first.endswith(".venv/bin/python -m study.run")
    assert second.endswith(".venv/bin/python -m pytest")
    clone = (ROOT / ".ci" / "fresh_clone.sh").read_text(encoding="utf-8")
    assert "grep '^python3 -m venv ' README.md" in clone
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'step "${commands[0]}"' in script and '"${commands[1]} | tee' in script


def test_links_lead_somewhere() -> None:
    files = [link for link in links(README) if not link.startswith("https://")]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_it_leads_to_every_page() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages - {"docs/index.md", "docs/data_recipes.md"} <= {*links(README)}


@pytest.mark.slow
def test_the_winner_is_a_loss_as_shown(tmp_path: Path) -> None:
    (training,) = [block for block in blocks(README, "python") if "build_loss(export" in block]
    export = tmp_path / "studies" / "joint-synthetic" / "exports" / "best_miou.yaml"
    export.parent.mkdir(parents=True)
    loss = {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.5}}
    export.write_text(yaml.safe_dump({"loss": loss}), encoding="utf-8")
    code = (
        "import torch\n"
        "num_classes, class_counts = 3, torch.tensor([[3, 1, 1], [1, 1, 0]])\n"
        "model, images = torch.nn.Conv2d(3, 3, 1), torch.randn(2, 3, 4, 5)\n"
        "target = torch.randint(0, 3, (2, 4, 5))\n"
        f"{training}\nvalue.backward()\nprint(bool(model.weight.grad.abs().sum() > 0))\n"
    )
    assert run_python(code, tmp_path) == ["True"]


@pytest.mark.slow
def test_a_trainer_of_ones_own_reports_as_shown(tmp_path: Path) -> None:
    (training,) = [block for block in blocks(README, "python") if "def train(context)" in block]
    code = (
        "import torch\n"
        "from study.trials.local import local_context\n"
        "def train_one_epoch(loss, lr_scale):\n"
        "    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)\n"
        "    loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64)).backward()\n"
        "    return 0.5 * lr_scale\n"
        f"{training}\n"
        "classes = {'names': ['a', 'b'], 'pixels': [9, 1]}\n"
        "task = {'trial': 'mytrain:train', 'budget': {'epochs': 2}, 'classes': classes}\n"
        "train(local_context(task))\n"
    )
    assert run_python(code, tmp_path) == [f"epoch {n}/2  val/miou 0.5000" for n in (1, 2)]


@pytest.mark.parametrize("file", ["cluster.yaml", "CITATION.cff"])
def test_yaml_beside_the_readme_is_yaml(file: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / file).read_text(encoding="utf-8")), dict)


def test_the_citation_names_the_three_papers_and_the_terms_of_the_data() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    urls = " ".join(reference["url"] for reference in citation["references"])
    assert all(number in urls for number in ("2106.14917", "1704.02966", "2302.05666"))
    assert "research and non-commercial use" in citation["abstract"]
