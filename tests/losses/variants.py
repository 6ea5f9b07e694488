"""One configuration per axis setting, random combinations, a batch: what batteries run over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

AXES: dict[str, dict[str, Any]] = {
    "ce": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "focal_half": {"focal_gamma": 0.5},
    "focal": {"focal_gamma": 2.0},
    "inverse_frequency": {"class_weights": {"scheme": "inverse_frequency"}},
    "median_frequency": {"class_weights": {"scheme": "median_frequency"}},
    "effective_number": {"class_weights": {"scheme": "effective_number"}},
    "enet_weight": {"class_weights": {"scheme": "enet"}, "normalizer": "weight"},
    "recall": {"recall": {"ema_momentum": 0.0}},
    "recall_ema_weight": {"recall": {"ema_momentum": 0.9}, "normalizer": "weight"},
    "max_top": {"pooling": {"kind": "max", "p": 1.0}},
    "max_sharp": {"pooling": {"kind": "max", "p": 1.05}},
    "max": {"pooling": {"kind": "max"}},
    "max_infinite": {"pooling": {"kind": "max", "p": float("inf")}},
    "ohem": {"pooling": {"kind": "ohem"}},
    "ohem_top": {"pooling": {"kind": "ohem", "threshold": 0.0, "min_kept": 0.3}},
    "jaccard": {"jaccard": {"mix": 1.0}},
    "dice_image": {"jaccard": {"mix": 0.5, "alpha": 0.5, "beta": 0.5, "average": "image"}},
    "tversky_class": {"jaccard": {"mix": 0.5, "alpha": 0.3, "beta": 0.7, "average": "class"}},
    "jaccard_all": {"jaccard": {"mix": 0.5, "classes": "all", "smooth": 0.0}},
    "jaccard_all_image": {"jaccard": {"mix": 1.0, "classes": "all", "average": "image"}},
    "jaccard_smoothed": {"label_smoothing": 0.1, "jaccard": {"mix": 0.5, "target": "smoothed"}},
    "focal_tversky_image": {
        "jaccard": {"mix": 0.5, "alpha": 0.3, "beta": 0.7, "average": "image", "power": 0.75}
    },
    "mixed_averages": {
        "jaccard": {"mix": 0.5, "average": {"batch": 2.0, "image": 1.0, "class": 1.0}, "power": 2.0}
    },
    "boundary": {"label_smoothing": 0.5, "smoothing_region": {"kind": "boundary"}},
    "boundary_jaccard": {
        "label_smoothing": 0.3,
        "smoothing_region": {"kind": "boundary", "width": 5},
        "jaccard": {"mix": 0.5, "target": "smoothed"},
    },
    "logit_adjustment": {"logit_adjustment": {"tau": 1.0}},
    "adjusted_recall_jaccard": {
        "logit_adjustment": {"tau": 0.5},
        "recall": {"ema_momentum": 0.5},
        "jaccard": {"mix": 0.5},
    },
    "everything": {
        "label_smoothing": 0.05,
        "focal_gamma": 1.5,
        "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
        "recall": {"ema_momentum": 0.5},
        "pooling": {"kind": "max", "p": 1.3, "ratio": 0.25},
        "normalizer": "weight",
        "jaccard": {"mix": 0.4, "target": "smoothed", "average": "image"},
    },
}

FEW = ("ce", "enet_weight", "ohem", "boundary_jaccard", "everything")


def each(configs: Mapping[str, dict[str, Any]], few: Collection[str] = FEW) -> pytest.MarkDecorator:
    """Parametrizes `config` by all of these; those beyond `few` are marked slow."""
    return pytest.mark.parametrize(
        "config",
        [
            pytest.param(config, id=name, marks=() if name in few else pytest.mark.slow)
            for name, config in configs.items()
        ],
    )


every_axis = each(AXES)

configs = st.fixed_dictionaries(
    {
        "label_smoothing": st.sampled_from([0.0, 0.05, 0.3]),
        "smoothing_region": st.sampled_from(
            [{"kind": "everywhere"}, {"kind": "boundary"}, {"kind": "boundary", "width": 5}]
        ),
        "focal_gamma": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "class_weights": st.sampled_from(
            [
                {"scheme": "none"},
                {"scheme": "inverse_frequency", "exponent": 0.7},
                {"scheme": "median_frequency"},
                {"scheme": "effective_number", "kappa": 0.3},
                {"scheme": "enet"},
            ]
        ),
        "recall": st.sampled_from([None, {"ema_momentum": 0.0}, {"ema_momentum": 0.9}]),
        "pooling": st.one_of(
            st.just({"kind": "mean"}),
            st.builds(
                lambda p, ratio: {"kind": "max", "p": p, "ratio": ratio},
                st.sampled_from([1.0, 1.01, 1.1, 1.7, 3.0, float("inf")]),
                st.sampled_from([0.05, 0.3, 1.0]),
            ),
            st.builds(
                lambda threshold, kept: {"kind": "ohem", "threshold": threshold, "min_kept": kept},
                st.sampled_from([0.0, 0.2, 0.7]),
                st.sampled_from([0.1, 0.5, 1.0]),
            ),
        ),
        "normalizer": st.sampled_from(["valid", "weight"]),
        "logit_adjustment": st.sampled_from([{"tau": 0.0}, {"tau": 0.0}, {"tau": 1.3}]),
        "jaccard": st.fixed_dictionaries(
            {
                "mix": st.sampled_from([0.0, 0.3, 1.0]),
                "alpha": st.sampled_from([0.3, 1.0]),
                "beta": st.sampled_from([0.7, 1.0]),
                "smooth": st.sampled_from([0.0, 1e-3, 1.0]),
                "average": st.sampled_from(["batch", "image", "class"]),
                "classes": st.sampled_from(["present", "all"]),
                "target": st.sampled_from(["hard", "smoothed"]),
            }
        ),
    }
)


def batch(
    seed: int = 0,
    shape: tuple[int, int, int] = (2, 6, 5),
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Logits of four classes, of which the last never occurs; labels, a fifth of them ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape[0], 4, *shape[1:], generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = 255
    return logits.to(dtype).requires_grad_(), target


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits)[0]
