from __future__ import annotations

import pytest

from study.losses import PRESETS
from study.losses.config import FactoryLoss, LossConfig
from study.losses.spelt import spelt


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "ce"])
def test_a_preset_is_named_with_its_paper(name: str) -> None:
    preset = PRESETS[name]
    told = spelt(LossConfig.model_validate(preset.config))
    alone = preset.config.get("jaccard", {}).get("mix") == 1
    assert told.startswith("the Jaccard metric loss" if alone else "cross entropy with ")
    assert preset.source in told
    assert f"the preset {name} " in told and told.count("arXiv") == preset.source.count("arXiv")


def test_each_part_of_another_loss_is_named_with_its_paper() -> None:
    tree = {
        "class_weights": {"scheme": "inverse_frequency", "exponent": 0.2},
        "pooling": {"kind": "max", "p": 2.0, "ratio": 0.4},
        "jaccard": {"mix": 0.9},
    }
    assert spelt(LossConfig.model_validate(tree)) == (
        "cross entropy with class weights by inverse frequency, loss max-pooling (Rota Bulo et "
        "al., CVPR 2017, arXiv 1704.02966) and the Jaccard metric loss (Wang et al., NeurIPS 2023, "
        "arXiv 2302.05666)"
    )
    alone = spelt(LossConfig.model_validate({"jaccard": {"mix": 1.0}}))
    assert alone.startswith("the Jaccard metric loss (Wang")
    assert spelt(LossConfig()) == "cross entropy"
    assert spelt(FactoryLoss(factory="mine:loss")) == "the user's own loss mine:loss"
