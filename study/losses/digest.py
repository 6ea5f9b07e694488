"""The digest of a loss, and its echo: a loss that is used says so where somebody listens.

A study whose trials run a training of the user's own has to know that each of them used the loss
that it was given. So a loss that is called for the first time appends one line to the file that the
environment variable `STUDY_LOSS_ECHO` names, if there is one.
"""

from __future__ import annotations

import hashlib
import json
import os

from study.losses.config import FactoryLoss, LossConfig

ECHO = "STUDY_LOSS_ECHO"
KEY = "loss_digest"
DIGITS = 16


def loss_digest(config: LossConfig | FactoryLoss) -> str:
    """16 hexadecimal digits that tell a loss from others: of its keys that are not neutral.

    >>> from study.losses import LossConfig
    >>> from study.losses.digest import loss_digest
    >>> loss_digest(LossConfig()) == loss_digest(LossConfig(focal_gamma=0.0))
    True
    >>> loss_digest(LossConfig(focal_gamma=2.0))
    'e7a59e23c5688355'
    """
    tree = config.model_dump(exclude_defaults=True)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:DIGITS]


def echo(digest: str) -> None:
    """Tell whoever listens that this loss is used."""
    file = os.environ.get(ECHO)
    if file:
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({KEY: digest}) + "\n")
