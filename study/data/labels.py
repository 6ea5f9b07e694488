"""From image and label files to pixels and class ids: what every format decodes with.

A label reader gives (H, W) uint8, in [0, C) or ignored. It goes through a table of what may stand
in a file, so that an id or a colour that nobody knows is a FileProblem and never a class.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from study.data.splits import IMAGENET_MEAN, IMAGENET_STD, FileProblem, UInt8Array, default_palette

IGNORED = 255
STRAY = 0.01  # share of pixels of unknown colour that counts as paint at the edges, so ignored
LabelReader = Callable[[Path], UInt8Array]
Colour = tuple[int, int, int]

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # large, but no bomb
warnings.filterwarnings("ignore", message="Corrupt EXIF", module="PIL")  # read for one entry only

_IMAGE_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_LABEL_FORMATS = ("PNG",)  # lossless, and with checksums
_IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")
_INDEX_MODES = ("L", "P")
_COLOUR_MODES = ("RGB", "RGBA", "P")
_TURNED = range(2, 9)  # EXIF orientations; 1 is upright
_PACKED = {"L;2": 2, "L;4": 4}  # decoding stretches grey values of so few bits to 0..255
_HIGH_BYTE, _LOW_BYTE = "RGB;16B", "RGB;16L"  # names that Pillow's PNG decoder gives to raw modes


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The classes of a data set, and how its images are normalised."""

    names: tuple[str, ...]
    palette: UInt8Array  # (C, 3)
    ignore_index: int = IGNORED
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def of(cls, classes: Iterable[tuple[str, Colour]]) -> ClassTable:
        """From (name, colour) in the order of the classes."""
        names, colours = zip(*classes, strict=True)
        return cls(names, np.array(colours, np.uint8))

    @classmethod
    def in_voc_colours(cls, names: tuple[str, ...]) -> ClassTable:
        """With the palette of PASCAL VOC."""
        return cls(names, default_palette(len(names)))


class IdTable:
    """What the values of a label file mean: value -> class or ignored."""

    def __init__(self, meaning: Mapping[int, int]) -> None:
        self._meaning = np.zeros(256, np.uint8)
        self._meaning[list(meaning)] = list(meaning.values())
        self._known = np.isin(np.arange(256), list(meaning))
        self._ranges = _ranges(sorted(meaning))

    def classes(self, values: UInt8Array, file: Path) -> UInt8Array:
        """(H, W) values -> (H, W) classes."""
        there = np.bincount(values.ravel(), minlength=256) > 0
        unknown = np.flatnonzero(there & ~self._known).tolist()
        if unknown:
            message = f"labels must be {self._ranges}, got {_listed(unknown)}"
            raise FileProblem("unknown label", message, file)
        return self._meaning[values]

    def read(self, file: Path) -> UInt8Array:
        """Of an 8-bit index PNG."""
        return self.classes(read_index(file), file)


class ColourTable:
    """What the colours of a label file mean: RGB -> class or ignored."""

    def __init__(self, meaning: Mapping[Colour, int]) -> None:
        codes = {_code(np.array(colour)): value for colour, value in meaning.items()}
        self._codes = np.array(sorted(codes))
        self._values = np.array([codes[code] for code in self._codes.tolist()], np.uint8)

    def read(self, file: Path) -> UInt8Array:
        """Of an RGB image; a few pixels of other colours are ignored."""
        rgb = read_colours(file)
        codes = _code(rgb)
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[place] == codes
        check_strays(~known, rgb, file)
        return np.where(known, self._values[place], np.uint8(IGNORED))


def check_strays(stray: np.ndarray, rgb: UInt8Array, file: Path) -> None:
    """Raises FileProblem where too many pixels have a colour without a meaning."""
    share = stray.mean()
    if share > STRAY:
        colours, counts = np.unique(rgb[stray], axis=0, return_counts=True)
        commonest = tuple(colours[counts.argmax()].tolist())
        raise FileProblem(
            "unknown label",
            f"at most {STRAY:.0%} of the pixels may have a colour of no class, got {share:.1%}, "
            f"most of them {commonest}",
            file,
        )


def read_image(file: Path) -> Image.Image:
    """An image, in RGB."""
    image, _ = _loaded(file, "image", _IMAGE_FORMATS)
    if image.mode not in _IMAGE_MODES:
        message = f"image must have 8 bits per channel, got mode {image.mode}"
        raise FileProblem("image mode", message, file)
    return image.convert("RGB")


def as_labelled(image: Image.Image, label: UInt8Array, file: Path) -> Image.Image:
    """A photograph that its EXIF orientation turns, turned where its label is: the label's size
    says whether it was drawn on the upright image or on the one that is stored."""
    try:
        upright = ImageOps.exif_transpose(image)
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever damaged bytes make of the reader
        return image  # an EXIF block that cannot be read turns nothing
    if orientation not in _TURNED:
        return image
    if upright.size == image.size:
        message = (
            f"EXIF orientation {orientation} is ambiguous, since the label fits both ways; store "
            "the image upright"
        )
        raise FileProblem("orientation", message, file)
    return upright if (upright.height, upright.width) == label.shape else image


def read_index(file: Path) -> UInt8Array:
    """The values, or palette indices, of an 8-bit label, whatever their colours."""
    label, raw_mode = _loaded(file, "label")
    bits = _PACKED.get(raw_mode)
    if bits:
        message = f"label must have 8 bits per pixel where it has no palette, got {bits}"
        raise FileProblem("label mode", message, file)
    if label.mode not in _INDEX_MODES:
        message = f"label must be an 8-bit index PNG (mode L or P), got mode {label.mode}"
        raise FileProblem("label mode", message, file)
    return np.asarray(label)


def read_colours(file: Path) -> UInt8Array:
    """(H, W, 3) of a label that is painted in colours."""
    label, raw_mode = _loaded(file, "label")
    deep = raw_mode.endswith(";16B")
    if label.mode not in _COLOUR_MODES or deep:
        mode = f"{label.mode} of 16 bits" if deep else label.mode
        message = f"label must be painted in RGB colours, got mode {mode}"
        raise FileProblem("label mode", message, file)
    return np.asarray(label.convert("RGB"))


def read_low_bytes(file: Path) -> UInt8Array:
    """(H, W, 3): the low bytes of a 16-bit RGB PNG.

    Pillow reads such a file as 8-bit and keeps the high bytes, which makes every id below 256 a 0.
    """
    label, raw_mode = _loaded(file, "label", low_bytes=True)
    if raw_mode != _HIGH_BYTE:
        message = f"label must be a 16-bit RGB PNG, got {raw_mode or label.mode}"
        raise FileProblem("label mode", message, file)
    return np.asarray(label)


def read_16_bit_ids(file: Path) -> UInt8Array:
    """(H, W): the first channel of a 16-bit RGB PNG, whose values must be below 256."""
    high = np.asarray(_loaded(file, "label")[0])[..., :1]
    ids = read_low_bytes(file)[..., 0]
    if high.any():
        largest = int((256 * high[..., 0].astype(np.int64) + ids).max())
        message = f"labels must be ids in the low bytes of the first channel, got {largest}"
        raise FileProblem("unknown label", message, file)
    return ids


def _loaded(
    file: Path, what: str, formats: tuple[str, ...] = _LABEL_FORMATS, *, low_bytes: bool = False
) -> tuple[Image.Image, str]:
    """Decoded whole, as a file that is cut short fails only then; and how a PNG was stored.

    The checksums of a PNG are checked apart: decoding does not look at them, and makes an image of
    damaged bytes as well.
    """
    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content), formats=formats) as opened:
            raw_mode = ""
            if isinstance(opened, PngImageFile):
                raw_mode = str(opened.tile[0].args)
                with Image.open(io.BytesIO(content), formats=formats) as checked:
                    checked.verify()
            if low_bytes and raw_mode == _HIGH_BYTE:
                opened.tile = [opened.tile[0]._replace(args=_LOW_BYTE)]
            opened.load()
            image = opened.copy()
            image.info.pop("transparency", None)
            return image, raw_mode
    except MemoryError:
        raise
    except Exception as error:  # whatever damaged bytes make of the reader
        if isinstance(error, UnidentifiedImageError):
            reason = f"not of a known format: {', '.join(formats)}"
        else:
            told = error.strerror if isinstance(error, OSError) and error.strerror else error
            reason = f"{type(error).__name__}: {told}"
        message = f"cannot read the {what} ({reason})"
        raise FileProblem(f"unreadable {what}", message, file) from error


def _code(rgb: np.ndarray) -> np.ndarray:
    """One number for the three in the last axis."""
    return rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def _ranges(values: list[int]) -> str:
    """`0 to 2 or 255`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], value]
        else:
            runs.append([value])
    texts = [" to ".join(map(str, run)) for run in runs]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _listed(values: list[int], most: int = 8) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more
