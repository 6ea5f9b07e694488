"""The committed reference numbers (float64): value, eight projections and the norm of the gradient.

Record: loss, sum_i cos((k + 1)(i + 1)) grad_i for k = 0..7, |grad|.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from study.losses import build_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "losses.npz")
RECORDS = json.loads(str(GOLDEN["records"]))


def fingerprint(value: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
    (grad,) = torch.autograd.grad(value, logits)
    flat = grad.double().numpy().ravel()
    index = np.arange(1, flat.size + 1)
    projections = [np.sum(np.cos(k * index) * flat) for k in range(1, 9)]
    return np.array([value.item(), *projections, np.linalg.norm(flat)])


def evaluate(record: dict, dtype: torch.dtype) -> np.ndarray:
    case, config = record["case"], json.loads(json.dumps(record["config"]))
    if config.get("pooling", {}).get("p") == "inf":
        config["pooling"]["p"] = float("inf")
    logits = torch.from_numpy(GOLDEN[f"{case}_logits"]).to(dtype).requires_grad_()
    target = torch.from_numpy(GOLDEN[f"{case}_target"])
    loss = build_loss(config, num_classes=logits.shape[1])
    if record["soft"]:
        soft = torch.from_numpy(GOLDEN[f"{case}_soft"])
        return fingerprint(loss(logits, soft, keep=target != 255), logits)
    return fingerprint(loss(logits, target), logits)


every_record = pytest.mark.parametrize(
    "index",
    [
        pytest.param(
            index,
            id=f"{record['case']}-{record['name']}",
            marks=() if index % 5 == 0 else pytest.mark.slow,
        )
        for index, record in enumerate(RECORDS)
    ],
)


@every_record
def test_value_and_gradient_match_in_float64(index):
    np.testing.assert_allclose(
        evaluate(RECORDS[index], torch.float64), GOLDEN["values"][index], rtol=1e-9, atol=1e-12
    )


@every_record
def test_value_and_gradient_norm_match_in_float32(index):
    found, expected = evaluate(RECORDS[index], torch.float32), GOLDEN["values"][index]
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-5)
    np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-4)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_a_stream_of_batches_moves_the_recall_as_recorded(momentum):
    loss = build_loss({"recall": {"ema_momentum": momentum}}, num_classes=5)
    rows, weights = GOLDEN[f"ema_m{momentum}"], GOLDEN[f"ema_m{momentum}_weight"]
    stream = zip(GOLDEN["ema_logits"], GOLDEN["ema_target"], rows, weights, strict=True)
    for logits, target, row, weight in stream:
        scores = torch.from_numpy(logits).requires_grad_()
        value = loss(scores, torch.from_numpy(target))
        np.testing.assert_allclose(fingerprint(value, scores), row, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(loss.weights(), weight, rtol=1e-12)
