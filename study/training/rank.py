"""The process of a rank above 0: `python -m study.training.rank`, which rank 0 starts.

It reads its order as a line of JSON from standard input, which closes with rank 0, and says there
that it is ready, and why it fails, on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from study.training.child import begun
from study.training.ranks import ERROR, READY, error_text


def main() -> int:
    """Train this rank's shares, until the training ends or rank 0 does."""
    order, out = begun()
    try:
        _train(order, lambda: print(READY, file=out, flush=True))
    except BaseException as error:
        print(ERROR, json.dumps(error_text(error)), file=out, flush=True)
        os._exit(1)
    os._exit(0)


def _train(order: dict[str, Any], ready: Any) -> None:
    import torch

    from study.config.task import TrialConfig
    from study.data import open_data
    from study.training.environment import set_up_process
    from study.training.ranks import device_of, joined
    from study.training.trainer import epochs

    set_up_process(order["num_threads"])
    config = TrialConfig.model_validate(order["config"])
    root = None if order["data_root"] is None else Path(order["data_root"])
    data = open_data(config.trained_here.data, data_root=root, begun=True)
    rank, size = order["rank"], order["size"]
    device = device_of(torch.device(order["device"]), rank, size)
    ready()
    with joined(rank, size, Path(order["folder"]), device) as ranks:
        resume = order["resume_from"]
        for _ in epochs(
            config,
            data,
            device,
            ranks,
            resume_from=None if resume is None else Path(resume),
            reported=order["reported"],
            evaluate_test=order["evaluate_test"],
            evaluate_at=order["evaluate_at"],
        ):
            pass


if __name__ == "__main__":
    sys.exit(main())
