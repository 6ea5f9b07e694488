"""Published losses by name: `PRESETS[name].config` is a starting point from a paper.

Every preset is a point of LossConfig.

    >>> from study.losses import PRESETS, build_loss
    >>> PRESETS["lmp"].config
    {'pooling': {'kind': 'max', 'p': 1.7, 'ratio': 0.3}}
    >>> loss = build_loss(PRESETS["lmp"].config, num_classes=19)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from study.core.names import CE


@dataclass(frozen=True)
class Preset:
    """A named loss configuration and the source of its numbers.

    Attributes:
        name: key in PRESETS.
        config: the `loss:` tree that `build_loss` takes; other keys are neutral.
        source: the paper, and where its numbers come from.
    """

    name: str
    config: dict[str, Any]
    source: str


_ALL = (
    Preset(CE, {}, "cross entropy, mean over valid pixels"),
    Preset(
        "recall",
        {"recall": {"ema_momentum": 0.0}},
        "Tian et al., ICRA 2022, arXiv 2106.14917: recall of the current batch",
    ),
    Preset(
        "recall_normalized",
        {"recall": {"ema_momentum": 0.0}, "normalizer": "weight"},
        "the same, its weights scaled to average 1 in each batch, so that the loss keeps its size",
    ),
    Preset(
        "recall_ema",
        {"recall": {"ema_momentum": 0.9}},
        "recall loss with a running recall; momentum 0.9 is common in practice, not the paper's",
    ),
    Preset(
        "inverse_sqrt",
        {
            "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
            "normalizer": "weight",
        },
        "weights f ** -0.5, as word2vec's subsampling (Mikolov et al., NeurIPS 2013, arXiv "
        "1310.4546) takes frequencies; normaliser and use on pixels are common practice",
    ),
    Preset(
        "median_frequency",
        {"class_weights": {"scheme": "median_frequency"}},
        "Eigen & Fergus, ICCV 2015, arXiv 1411.4734; SegNet",
    ),
    Preset(
        "lmp",
        {"pooling": {"kind": "max", "p": 1.7, "ratio": 0.3}},
        "Rota Bulo et al., CVPR 2017, arXiv 1704.02966; p and ratio are the public ports' defaults",
    ),
    Preset(
        "ohem",
        {"pooling": {"kind": "ohem", "threshold": 0.7, "min_kept": 0.1}},
        "Shrivastava et al., CVPR 2016, arXiv 1604.03540; threshold of PIDNet and mmsegmentation, "
        "min_kept as a share",
    ),
    Preset(
        "jml",
        {"jaccard": {"mix": 0.75}},
        "Wang et al., NeurIPS 2023, arXiv 2302.05666: cross entropy to Jaccard 0.25 : 0.75",
    ),
    Preset(
        "jml_soft",
        {"label_smoothing": 0.1, "jaccard": {"mix": 0.75, "target": "smoothed"}},
        "Wang et al., NeurIPS 2023, arXiv 2302.05666: the same on label-smoothed targets",
    ),
    Preset(
        "jml_bls",
        {
            "label_smoothing": 0.5,
            "smoothing_region": {"kind": "boundary", "width": 3},
            "jaccard": {"mix": 0.75, "target": "smoothed"},
        },
        "Wang et al., NeurIPS 2023, arXiv 2302.05666: the same on labels smoothed at boundaries",
    ),
    Preset(
        "logit_adjusted",
        {"logit_adjustment": {"tau": 1.0}},
        "Menon et al., ICLR 2021, arXiv 2007.07314, at its tau of 1: the balanced softmax of Ren "
        "et al., NeurIPS 2020, arXiv 2007.10740",
    ),
    Preset(
        "dice_ce",
        {"jaccard": {"mix": 0.5, "alpha": 0.5, "beta": 0.5}},
        "Isensee et al. (nnU-Net), Nature Methods 2021, arXiv 1809.10486: cross entropy and Dice, "
        "half each, here of the present classes",
    ),
    Preset(
        "dice_topk",
        {
            "pooling": {"kind": "ohem", "threshold": 0.0, "min_kept": 0.1},
            "jaccard": {"mix": 0.5, "alpha": 0.5, "beta": 0.5},
        },
        "Ma et al., Medical Image Analysis 2021, arXiv 2005.13449: Dice and the hardest tenth of "
        "the pixels' cross entropies (Wu et al. 2016, arXiv 1605.06885), half each",
    ),
    Preset(
        "focal_tversky",
        {"jaccard": {"mix": 1.0, "alpha": 0.3, "beta": 0.7, "power": 0.75}},
        "Abraham & Khan, ISBI 2019, arXiv 1810.07842: misses 0.7, false positives 0.3, gamma 4/3",
    ),
    Preset(
        "kd",
        {"distillation": {"temperature": 1.0, "mix": 0.5}},
        "Hinton et al. 2015, arXiv 1503.02531; mix and temperature of Wang et al., NeurIPS 2023",
    ),
    Preset(
        "jml_kd",
        {"jaccard": {"mix": 0.75}, "distillation": {"temperature": 1.0, "mix": 0.5}},
        "Wang et al., NeurIPS 2023, arXiv 2302.05666: half on the true labels, half on a teacher's",
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
