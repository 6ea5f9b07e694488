"""A trained network with all that its use needs: normalisation, decision rule, size, classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from study.data.labels import as_rgb, read_image
from study.inference.windows import windowed
from study.losses.looking import may_look
from study.metrics import Decision

UInt8Array = NDArray[np.uint8]
Picture = str | Path | Image.Image | UInt8Array
SLACK = 0.5  # outside of 0..1, as where images were enlarged; none that are normalised stay within
ROWS = 256  # of a picture that are enlarged at a time: bounds memory


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one picture, at its own size.

    classes: (H, W) uint8. probabilities: (C, H, W) float16 if they were asked for: the softmax of
    z - tau log pi, whose largest is the predicted class.
    """

    classes: UInt8Array
    probabilities: NDArray[np.float16] | None


class Predictor(nn.Module):
    """A network that takes RGB pictures and gives classes, as the study's own evaluation does.

        classes = argmax_c(z_c - tau log pi_c),  z the logits of (images - mean) / std

    Args:
        model: maps normalised images (B, 3, H, W) to logits (B, C, H, W).
        decision: the rule of the export.
        class_names: C names.
        palette: (C, 3) uint8 RGB, a colour of each class.
        mean: of the training images, RGB in 0..1.
        std: likewise.
        size: (height, width) of the training images; `predict` resizes a picture to it. None:
            no resizing.
        fit: how, `stretch` or `pad` (see the task's `data:`).

    Examples:
        >>> import torch
        >>> from study.inference import Predictor
        >>> from study.metrics import Decision
        >>> predictor = Predictor(
        ...     torch.nn.Conv2d(3, 2, 1), Decision((), 0.0), class_names=("road", "pole"),
        ...     palette=[[0, 0, 0], [255, 0, 0]], mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
        ... )
        >>> predictor(torch.zeros(1, 3, 4, 6, dtype=torch.uint8)).shape
        torch.Size([1, 4, 6])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        decision: Decision,
        *,
        class_names: tuple[str, ...],
        palette: Any,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: tuple[int, int] | None = None,
        fit: Literal["stretch", "pad"] = "stretch",
    ) -> None:
        super().__init__()
        self.model = model.eval()
        self.decision = decision
        self.class_names = class_names
        self.palette: UInt8Array = np.asarray(palette, np.uint8)
        self.size = size
        self.fit = fit
        for name, value in (("mean", mean), ("std", std)):
            tensor = torch.tensor(value, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, tensor, persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module; its network stays in evaluation, also within a module that
        trains: in training its batch norm would learn from the images that it is shown."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """The classes (B, H, W) of images (B, 3, H, W): uint8, or float in 0..1. They should be as
        large as the training images; `predict` resizes them."""
        classes: Tensor = self.decision(self.logits(images))
        return classes

    def logits(self, images: Tensor) -> Tensor:
        """The network's logits (B, C, H, W) of such images.

        Raises:
            ValueError: for another shape or dtype, and on a CPU for floats of another range.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif not images.is_floating_point():
            raise ValueError(f"images must be uint8, or float in 0..1, got {images.dtype}")
        elif images.numel() and may_look(images) and not torch.compiler.is_compiling():
            least, most = (float(value) for value in images.detach().aminmax())
            if least < -SLACK or most > 1 + SLACK:
                raise ValueError(
                    f"images must be uint8, or float in 0..1, got {least:.3g} to {most:.3g}; they "
                    "are normalised here"
                )
        return self._of_normalised((images - self.mean) / self.std)

    def predict(
        self,
        picture: Picture,
        *,
        window: tuple[int, int] | None = None,
        margin: int | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Predict one picture of any size.

        Args:
            picture: a file, an image of Pillow, or RGB values (H, W, 3) uint8. Photographs that
                carry an orientation are turned upright.
            window: None: the picture is resized to the size of the training images, and its
                logits back to the picture's size. (height, width): the picture keeps its size, and
                overlapping windows of it are predicted. Use this for pictures that are larger than
                the training images but show objects at the same size.
            margin: predictions this close to an inner edge of a window are dropped; default a
                quarter of the window's shorter side.
            probabilities: also return the probabilities.

        Raises:
            InputError: for a file that cannot be read.
            ValueError: for values of another shape, and a margin that leaves nothing of a window.
        """
        image = Image.fromarray(opened(picture))
        height, width = image.height, image.width
        classes = np.zeros((height, width), np.uint8)
        found = None
        if probabilities:
            found = np.zeros((len(self.class_names), height, width), np.float16)
        with torch.inference_mode():
            for rows, columns, logits in self._parts(image, window, margin):
                classes[rows, columns] = self.decision(logits[None])[0].cpu().numpy()
                if found is not None:
                    found[:, rows, columns] = self._probabilities(logits).cpu().numpy()
        return Prediction(classes, found)

    def _parts(
        self, image: Image.Image, window: tuple[int, int] | None, margin: int | None
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        if window is not None:
            margin = min(window) // 4 if margin is None else margin
            yield from windowed(self._of_normalised, self._normalised(image), window, margin)
            return
        height, width = image.height, image.width
        shown = self._shown(image)
        inputs = self._normalised(image.resize(shown[::-1], Image.Resampling.BILINEAR))
        if self.fit == "pad" and self.size is not None:
            below, right = self.size[0] - shown[0], self.size[1] - shown[1]
            inputs = F.pad(inputs, (0, right, 0, below))
        logits = self._of_normalised(inputs[None])[0, :, : shown[0], : shown[1]]
        for first in range(0, height, ROWS):
            rows = slice(first, min(first + ROWS, height))
            yield rows, slice(0, width), _enlarged(logits, rows, (height, width))

    def _shown(self, image: Image.Image) -> tuple[int, int]:
        """The (height, width) to which a picture is brought."""
        if self.size is None:
            return image.height, image.width
        if self.fit == "stretch":
            return self.size
        scale = min(1.0, self.size[1] / image.width, self.size[0] / image.height)
        return max(1, round(image.height * scale)), max(1, round(image.width * scale))

    def _normalised(self, image: Image.Image) -> Tensor:
        values = torch.from_numpy(np.array(image)).to(self.mean.device).permute(2, 0, 1)
        return (values.float() / 255 - self.mean) / self.std

    def _of_normalised(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.contiguous(memory_format=torch.channels_last)).float()
        return logits

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.decision.tau:
            prior = torch.tensor(self.decision.log_prior, device=logits.device)
            logits = logits - self.decision.tau * prior[:, None, None]
        return logits.softmax(0).half()


def opened(picture: Picture) -> UInt8Array:
    """The RGB values (H, W, 3) of a picture, upright.

    Raises:
        InputError: for a file that cannot be read, and an image of other than 8 bits.
        ValueError: for values of another shape.
        TypeError: for anything else.
    """
    if isinstance(picture, str | Path):
        picture = read_image(Path(picture))
    if isinstance(picture, Image.Image):
        with contextlib.suppress(Exception):  # an unreadable orientation: as it is stored
            picture = ImageOps.exif_transpose(picture)
        return np.array(as_rgb(picture))
    must = "a picture is a file, an image of Pillow, or values that must be (H, W, 3) uint8"
    if not isinstance(picture, np.ndarray):
        raise TypeError(f"{must}, got {type(picture).__name__}")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"{must}, got {picture.shape} {picture.dtype}")
    return picture


def _enlarged(logits: Tensor, rows: slice, size: tuple[int, int]) -> Tensor:
    """Some rows of logits (C, h, w) brought to `size` by bilinear interpolation: what
    `F.interpolate` gives, without the whole in memory."""
    height, width = size
    if logits.shape[1:] == size:
        return logits[:, rows]
    centres = torch.arange(rows.start, rows.stop, device=logits.device) + 0.5
    places = (centres * logits.shape[1] / height - 0.5).clamp(0, logits.shape[1] - 1)
    above = places.floor().long()
    below = (above + 1).clamp(max=logits.shape[1] - 1)
    weight = (places - above)[:, None]
    tall = logits[:, above] * (1 - weight) + logits[:, below] * weight
    return F.interpolate(tall[None], (len(centres), width), mode="bilinear")[0]
