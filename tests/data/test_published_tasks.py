"""The tasks on published data sets: each carries its paper's numbers and plans a study."""

from __future__ import annotations

import pytest
import yaml
from file_trees import TREES, data

from study.config.shipped import shipped
from study.config.task import EpochBudget, FileData, SmpModel, StepBudget, load_task
from study.data import scan_files
from study.run import main
from study.training.models import build_model

NAMES = [name for name in shipped("tasks") if "deeplabv3plus" in name]


@pytest.mark.parametrize(
    ("name", "crop", "batch_size", "lr", "budget"),
    [
        ("cityscapes", (769, 769), 6, 1e-4, StepBudget(steps=90000, reports=90)),
        ("synthia", (384, 768), 6, 1e-3, StepBudget(steps=100000, reports=100)),
        ("voc", (512, 512), 8, 6e-4, StepBudget(steps=40000, reports=40)),
        ("deepglobe", (512, 512), 8, 6e-4, EpochBudget(epochs=60)),
    ],
)
def test_a_task_has_the_numbers_of_its_paper(name, crop, batch_size, lr, budget):
    task = load_task(f"{name}_deeplabv3plus_r18").config
    assert isinstance(task.data, FileData)
    assert (task.augment.crop or task.data.size) == crop
    assert (task.batch_size, task.optimizer.lr, task.budget) == (batch_size, lr, budget)


def test_the_camvid_tasks_differ_in_size_not_in_splits():
    names = ("camvid", "camvid_full", "camvid_pretrained")
    small, full, pretrained = (load_task(name).config.data for name in names)
    assert isinstance(full, FileData)
    assert pretrained == small
    assert full.size == (180, 240)
    assert full.model_copy(update={"size": (96, 128)}) == small


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_published_task_plans_a_study_on_a_miniature_of_its_data(
    name, tmp_path, capsys, monkeypatch
):
    """At a size and a crop of 32 pixels, and without the weights of the encoder."""
    task = yaml.safe_load(shipped("tasks")[name].read_text(encoding="utf-8"))
    form = task["data"]["format"]
    TREES[form].write(tmp_path / "root")
    task["data"] = {**task["data"], **data(form), "size": [32, 32]}
    if "crop" in task.get("augment", {}):
        task["augment"]["crop"] = [32, 32]
    task["model"]["encoder_weights"] = None
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = main(["--task", f"{name}.yaml", "--data-root", "root", "--dry-run"])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    assert f"joint on {name}, {load_task(name).config.num_epochs} epochs a trial" in captured.out
    config = load_task(f"{name}.yaml").config.data
    assert isinstance(config, FileData)
    assert f"\ndata: {scan_files(config, tmp_path / 'root').rule}\n" in captured.out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_that_cannot_be_fetched_end_in_one_line_that_says_what_to_do(name, monkeypatch):
    import huggingface_hub.errors

    def unreachable(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find the requested files")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", unreachable)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", unreachable)
    model = load_task(name).config.model
    assert isinstance(model, SmpModel)
    with pytest.raises(
        ValueError, match=r"^model/encoder_weights: .*`encoder_weights: null`.*HF_HOME"
    ):
        build_model(model, 19)
