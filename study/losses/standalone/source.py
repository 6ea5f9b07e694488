"""The source of one loss: a file that needs torch alone, for a trainer without this package."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from study.core.errors import InputError, printable
from study.core.yaml_text import as_yaml
from study.losses.class_weights import has_class_weights
from study.losses.config import LossConfig, MaxPooling
from study.losses.digest import loss_digest
from study.losses.family import active
from study.losses.logit_adjustment import log_prior
from study.losses.spelt import papers, spelt
from study.losses.standalone.specialise import specialise

FLAGS = re.compile(r"^([A-Z_]+): bool = True$", re.MULTILINE)


@dataclass(frozen=True)
class StandaloneLoss:
    """A loss with all that its file holds.

    class_names: may be empty. class_counts: as for `build_loss`. decision: tau and log_prior of
    the export's rule, if it has one. lr_scale: the learning rate over that of cross entropy.
    origin: sentences for the head of the file. echo: tell a study that runs the file that the loss
    is used.
    """

    config: LossConfig
    num_classes: int
    class_names: Sequence[str] = ()
    class_counts: Any = None
    decision: tuple[float, Sequence[float]] | None = None
    lr_scale: float = 1.0
    origin: Sequence[str] = ()
    echo: bool = False
    ignore_index: int = 255

    @property
    def digest(self) -> str:
        """See `loss_digest`."""
        return loss_digest(self.config)

    @property
    def class_weights(self) -> list[float] | None:
        """The weight of each class as a number; None if no weights act."""
        from study.losses.class_weights import class_weights

        if not has_class_weights(self.config.class_weights):
            return None
        found = class_weights(self.config.class_weights, self.class_counts, self.num_classes)
        return None if found is None else found.tolist()


def loss_source(loss: StandaloneLoss) -> str:
    """The text of the file: module `Loss`, the constant DIGEST and, with a rule, `decide`."""
    from study.losses.standalone import template

    source = inspect.getsource(template)
    on = _flags(loss)
    flags = {name: name in on for name in FLAGS.findall(source)}
    assert on <= flags.keys(), on - flags.keys()
    roots = {"DIGEST", "Loss", *(["decide"] if loss.decision else [])}
    use = [
        "loss = Loss().to(device)",
        "value = loss(network(images), labels)  # (B, C, H, W), (B, H, W)",
        "value.backward()",
        "loss.eval()  # while validating, as the network; then loss.train()",
    ]
    if loss.decision is not None:
        use.append("classes = decide(network(images))  # by the rule that val chose")
    top = head(loss, needs="It needs torch alone.", use=use)
    return top + "\n" + specialise(source, flags, _values(loss), roots)


def _flags(loss: StandaloneLoss) -> set[str]:
    """The flags of the template that are on."""
    config, jaccard = loss.config, loss.config.jaccard
    flags = set[str]()
    for axis in active(config):
        if not axis.parts:
            message = f"there is no form of {axis.words(config)[0]} without this package"
            raise InputError(message, key=f"loss/{axis.key}")
        flags |= set(axis.parts)
    if jaccard.mix < 1:
        flags.add("PIXEL_TERM")
    if config.normalizer == "weight" and flags & {"WEIGHTS", "RECALL"}:
        flags.add("WEIGHT_NORMALIZER")
    if isinstance(config.pooling, MaxPooling) and config.pooling.p == 1:
        flags.add("HARDEST")
    if jaccard.target == "smoothed" and "SMOOTHING" in flags:
        flags.add("SMOOTHED_TARGET")
    flags.add({"all": "ALL_CLASSES", "present": "SHOWN_CLASSES"}[jaccard.classes])
    if len(jaccard.averages) > 1 and jaccard.mix > 0:
        message = "there is no form of a mixture of averages without this package"
        raise InputError(message, key="loss/jaccard/average")
    if (average := next(iter(jaccard.averages))) != "batch":
        flags.add({"image": "BY_IMAGE", "class": "BY_CLASS"}[average])
    if jaccard.power != 1 and jaccard.mix > 0:
        flags.add("OVERLAP_POWER")
    if loss.class_names:
        flags.add("NAMES")
    if loss.echo:
        flags.add("ECHO")
    return flags


def _values(loss: StandaloneLoss) -> dict[str, str]:
    """The constants and the parameters of the template, as expressions."""
    values: dict[str, Any] = {"num_classes": loss.num_classes, "ignore_index": loss.ignore_index}
    for axis in active(loss.config):
        values |= axis.numbers(loss.config)
    found = {name: repr(value) for name, value in values.items()}
    found["POWER"] = f"{loss.config.jaccard.power!r}  # above the loss of each class"
    found["DIGEST"] = f'"{loss.digest}"'
    if loss.class_names:
        found["CLASS_NAMES"] = rows([_text(name) for name in loss.class_names])
    if (weights := loss.class_weights) is not None:
        found["CLASS_WEIGHTS"] = rows(list(map(repr, weights)), loss.class_names)
    if loss.config.logit_adjustment.tau > 0:
        own = log_prior(loss.class_counts, loss.num_classes).tolist()
        found["CLASS_LOG_PRIOR"] = rows(list(map(repr, own)), loss.class_names)
    if loss.decision is not None:
        tau, prior = loss.decision
        found["TAU"] = repr(tau)
        found["LOG_PRIOR"] = rows(list(map(repr, prior)), loss.class_names)
    return found


def _text(text: str) -> str:
    """A literal in double quotes where that needs no more escapes."""
    literal = repr(text).encode("ascii", "backslashreplace").decode()
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def rows(items: Sequence[str], names: Sequence[str] = ()) -> str:
    """The literal of a tuple, an item in a line, each with the name of its class."""
    notes = [f"  # {printable(name)}" for name in names] or [""] * len(items)
    rows = [f"    {item},{note}\n" for item, note in zip(items, notes, strict=True)]
    return f"(\n{''.join(rows)})"


def head(loss: StandaloneLoss, *, needs: str, use: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Comments: what the file is, how it is used, the config and the papers."""
    scale, words = loss.lr_scale, spelt(loss.config)
    rate = "that of cross entropy" if scale == 1 else f"{scale:.4g} times that of cross entropy"
    sentences = [
        f"{words[0].upper()}{words[1:]}.",
        *loss.origin,
        f"{needs} Where pixels are ignored, labels are {loss.ignore_index}. Learning rate: {rate}.",
        *notes,
    ]
    lines = [
        *(line for sentence in sentences for line in _wrapped(sentence)),
        "",
        *(f"    {line}" for line in use),
        "",
        "    loss:",
        *(f"      {line}" for line in as_yaml(loss.config.model_dump()).splitlines()),
    ]
    if found := papers(loss.config):
        lines += ["", *(line for one in found for line in _wrapped(one))]
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(printable(sentence), 97, break_long_words=False, break_on_hyphens=False)
