"""The equals of a loss in other libraries: those that give the same value, and none that is near.

mmsegmentation   `CrossEntropyLoss`, of version 1.2: the mean over pixels that are not ignored; with
                 class weights the sum over the sum of weights, as `normalizer: weight` here
segmentation-models-pytorch   `SoftCrossEntropyLoss`, of version 0.6, also smoothed everywhere. Its
                 own mean divides by all pixels, the ignored ones too, so its sum is taken

Not equal: focal losses ask every class apart, with a sigmoid; Jaccard, Dice and Tversky losses keep
classes and images without a pixel in the mean; OHEM keeps a number of pixels and divides by all.
"""

from __future__ import annotations

from study.core.errors import InputError
from study.losses.family import active
from study.losses.standalone.source import StandaloneLoss, head, rows

MMSEG, SMP = "mmseg", "smp"
LIBRARIES = {MMSEG: "mmsegmentation", SMP: "segmentation-models-pytorch"}
HAS = {MMSEG: {"class_weights"}, SMP: {"label_smoothing"}}
HINT = "--format python writes a file that needs torch alone"


def equivalent_source(library: str, loss: StandaloneLoss) -> str:
    """The text of a Python file with the equal of a loss in a library, a key of `LIBRARIES`.

    Raises:
        InputError: with the axis that has none there.
    """
    for axis in active(loss.config):
        if axis.name not in HAS[library]:
            words = axis.words(loss.config)[0]
            message = f"{LIBRARIES[library]} has no equal of {words}"
            raise InputError(message, hint=HINT, key=f"loss/{axis.key}")
    return _mmseg(loss) if library == MMSEG else _smp(loss)


def _mmseg(loss: StandaloneLoss) -> str:
    weights = loss.class_weights
    notes, lines = [], ["loss_decode = dict(", '    type="CrossEntropyLoss",']
    if weights is not None:
        if loss.config.normalizer != "weight":
            message = "mmsegmentation divides by the sum of the pixels' class weights"
            raise InputError(
                f"{message}, which is `normalizer: weight`", hint=HINT, key="loss/normalizer"
            )
        notes.append(
            "With class weights, version 1.2 of mmsegmentation ends with an IndexError where a "
            "pixel is ignored: use it with labels that have none."
        )
        table = rows([repr(weight) for weight in weights], loss.class_names)[1:-1]
        lines += ["    class_weight=["]
        lines += [f"    {line}" for line in table.strip("\n").split("\n")]
        lines += ["    ],"]
    lines += ["    avg_non_ignore=True,", ")"]
    use = ["model = dict(decode_head=dict(loss_decode=loss_decode))"]
    top = head(loss, needs="For the config of a network in mmsegmentation.", use=use, notes=notes)
    return f'{top}\nDIGEST = "{loss.digest}"\n\n' + "\n".join(lines) + "\n"


def _smp(loss: StandaloneLoss) -> str:
    use = ["value = loss(network(images), labels)  # (B, C, H, W), (B, H, W) with 255 ignored"]
    needs = "It needs torch and segmentation-models-pytorch."
    return f'''{head(loss, needs=needs, use=use)}
import segmentation_models_pytorch as smp
from torch import Tensor

DIGEST = "{loss.digest}"
cross_entropy = smp.losses.SoftCrossEntropyLoss(
    reduction="sum",
    smooth_factor={loss.config.label_smoothing!r},
    ignore_index=255,
)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the pixels that count; the library's own mean divides by all."""
    return cross_entropy(logits.float(), labels.long()) / (labels != 255).sum().clamp(min=1)
'''
