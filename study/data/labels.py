"""Readers that decode image and label files into pixels and class ids, for every format.

A label reader returns (H, W) uint8 class ids in [0, C) or the ignored value. It maps the file's
values through a table, so that an unknown id or colour is a FileProblem and never a class.
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

from study.core.errors import is_out_of_memory
from study.data.splits import IMAGENET_MEAN, IMAGENET_STD, FileProblem, UInt8Array

IGNORED = 255
STRAY = 0.01  # largest fraction of unknown colours that passes as blurred edges, ignored
LabelReader = Callable[[Path], UInt8Array]
Colour = tuple[int, int, int]

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # images may be large
warnings.filterwarnings("ignore", message="Corrupt EXIF", module="PIL")  # only orientation is read

_IMAGE_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_LABEL_FORMATS = ("PNG",)  # lossless, and with checksums
_ANY_LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG", "PPM")
_IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")
_INDEX_MODES = ("L", "P")
_COLOUR_MODES = ("RGB", "RGBA", "P")
_ALPHA_MODES = ("LA", "RGBA")
_TURNED = range(2, 9)  # EXIF orientations; 1 is upright
_TIFF = (".tif", ".tiff")
_ARRAYS = "`python -m study.data convert arrays DIR DST` makes pictures of 8 bits of all of DIR"
_PACKED = {"L;2": 2, "L;4": 4}  # bits of a grey value, which decoding stretches to 0..255
_GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I", "F")
_HIGH_BYTE, _LOW_BYTE = "RGB;16B", "RGB;16L"  # raw modes of Pillow's PNG decoder


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The classes of a data set, and the mean and std that normalise its images."""

    names: tuple[str, ...]
    palette: UInt8Array  # (C, 3)
    ignore_index: int = IGNORED
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def of(cls, classes: Iterable[tuple[str, Colour]]) -> ClassTable:
        """Build the table from (name, colour) pairs in class order."""
        names, colours = zip(*classes, strict=True)
        return cls(names, np.array(colours, np.uint8))


class IdTable:
    """Maps the values of a label file to classes: value -> class or ignored."""

    def __init__(self, meaning: Mapping[int, int]) -> None:
        self._meaning = np.zeros(256, np.uint8)
        self._meaning[list(meaning)] = list(meaning.values())
        self._known = np.isin(np.arange(256), list(meaning))
        self._ranges = ranges(sorted(meaning))

    def classes(self, values: UInt8Array, file: Path) -> UInt8Array:
        """Map (H, W) values to (H, W) classes."""
        there = np.bincount(values.ravel(), minlength=256) > 0
        unknown = np.flatnonzero(there & ~self._known).tolist()
        if unknown:
            message = f"labels must be {self._ranges}, got {listed(unknown)}"
            raise FileProblem("unknown label", message, file)
        return self._meaning[values]

    def read(self, file: Path) -> UInt8Array:
        """Read the classes of an 8-bit index PNG."""
        return self.classes(read_index(file), file)


class ColourTable:
    """Maps the colours of a label file to classes: RGB -> class or ignored."""

    def __init__(self, meaning: Mapping[Colour, int]) -> None:
        codes = {colour_codes(np.array(colour)): value for colour, value in meaning.items()}
        self._codes = np.array(sorted(codes))
        self._values = np.array([codes[code] for code in self._codes.tolist()], np.uint8)

    def read(self, file: Path) -> UInt8Array:
        """Read the classes of an RGB image; a few pixels of unknown colours are ignored."""
        rgb = read_colours(file)
        codes = colour_codes(rgb)
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[place] == codes
        check_strays(~known, rgb, file)
        return np.where(known, self._values[place], np.uint8(IGNORED))


def check_strays(stray: np.ndarray, rgb: UInt8Array, file: Path) -> None:
    """Raise FileProblem if more than the fraction STRAY of the pixels has an unknown colour."""
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
    """Read an image as RGB."""
    image, _ = _loaded(file, "image", _IMAGE_FORMATS)
    return as_rgb(image, file)


def as_rgb(image: Image.Image, file: Path | None = None) -> Image.Image:
    """An image as RGB. Raises FileProblem unless it has 8 bits per channel: Pillow would cut off
    what is above 255."""
    if image.mode not in _IMAGE_MODES:
        message = f"image must have 8 bits per channel, got mode {image.mode}"
        raise FileProblem("image mode", message, file, hint=_ARRAYS)
    return image.convert("RGB")


def as_labelled(image: Image.Image, label: UInt8Array, file: Path) -> Image.Image:
    """Rotate a photograph by its EXIF orientation if its label fits only the rotated image.

    The label's size tells whether it was drawn on the upright image or on the stored one.
    """
    try:
        upright = ImageOps.exif_transpose(image)
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged bytes make the reader raise anything
        return image  # an unreadable EXIF block: leave the image as it is
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
    """Read the values or palette indices of an 8-bit label, whatever their colours."""
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
    """Read a label that is painted in colours, (H, W, 3)."""
    label, raw_mode = _loaded(file, "label")
    deep = raw_mode.endswith(";16B")
    if label.mode not in _COLOUR_MODES or deep:
        mode = f"{label.mode} of 16 bits" if deep else label.mode
        message = f"label must be painted in RGB colours, got mode {mode}"
        raise FileProblem("label mode", message, file)
    return np.asarray(label.convert("RGB"))


@dataclass(frozen=True, eq=False)
class StoredLabel:
    """A label as its file holds it.

    Attributes:
        values: (H, W) grey values or palette indices; None where it is painted in RGB.
        rgb: (H, W, 3) of a palette or RGB label; None where it is grey.
        is_png: whether the file is a PNG, whose palettes keep the order that their author gave.
        is_lossy: whether it was compressed with loss, so that its values are blurred.
        alpha: (H, W) how opaque its pixels are; None where nothing is said of that.
    """

    values: np.ndarray | None
    rgb: UInt8Array | None
    is_png: bool
    is_lossy: bool
    alpha: UInt8Array | None = None


def read_stored(file: Path) -> StoredLabel:
    """Read a label of any kind: grey values as they are stored in 1 to 32 bits, palette or RGB."""
    label, raw_mode = _loaded(file, "label", _ANY_LABEL_FORMATS)
    is_lossy = (
        label.format == "JPEG"
        or label.info.get("compression") in ("jpeg", "tiff_jpeg", "webp")
        or (label.format == "WEBP" and b"VP8L" not in file.read_bytes()[:64])
    )
    is_png = label.format == "PNG"
    alpha = np.asarray(label.getchannel("A")) if label.mode in _ALPHA_MODES else None
    if raw_mode.endswith(";16B") and not label.mode.startswith("I;16"):
        message = f"label must have 8 bits per channel, got mode {label.mode} of 16 bits"
        raise FileProblem("label mode", message, file)
    if label.mode in _GREY_MODES:
        values = np.asarray(label.getchannel(0) if label.mode == "LA" else label)
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            raise FileProblem("label mode", "label must hold whole numbers, got fractions", file)
        if values.dtype != np.uint8:
            values = values.astype(np.int64)
        if raw_mode in _PACKED:
            values = values // np.uint8(255 // (2 ** _PACKED[raw_mode] - 1))
        return StoredLabel(values, None, is_png, is_lossy, alpha)
    if label.mode not in _COLOUR_MODES:
        message = f"label must be grey, of a palette, or RGB, got mode {label.mode}"
        raise FileProblem("label mode", message, file)
    indices = np.asarray(label) if label.mode == "P" else None
    return StoredLabel(indices, np.asarray(label.convert("RGB")), is_png, is_lossy, alpha)


def of_alpha(label: StoredLabel, file: Path) -> StoredLabel:
    """The label whose values are how opaque the pixels are."""
    if label.alpha is None:
        raise FileProblem("label mode", "label must have an alpha channel to be read by", file)
    return StoredLabel(label.alpha, None, label.is_png, label.is_lossy)


def colour_codes(rgb: np.ndarray) -> np.ndarray:
    """One number for each colour in the last axis: 65536 r + 256 g + b."""
    return rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def read_low_bytes(file: Path) -> UInt8Array:
    """Read the low bytes of a 16-bit RGB PNG, (H, W, 3).

    Pillow reads such a file as 8-bit and keeps the high bytes, which turns every id below 256 into
    0.
    """
    label, raw_mode = _loaded(file, "label", low_bytes=True)
    if raw_mode != _HIGH_BYTE:
        message = f"label must be a 16-bit RGB PNG, got {raw_mode or label.mode}"
        raise FileProblem("label mode", message, file)
    return np.asarray(label)


def read_16_bit_ids(file: Path) -> UInt8Array:
    """Read the first channel of a 16-bit RGB PNG, (H, W); its values must be below 256."""
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
    """Decode the whole file, as a truncated file fails only then; also return how a PNG was stored.

    Verifies the checksums of a PNG separately: decoding ignores them and also returns an image for
    damaged bytes.
    """
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise OSError("not a regular file")  # reading a pipe would wait for ever
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
            if what == "label" and getattr(opened, "n_frames", 1) > 1:
                size = opened.size
                opened.seek(1)
                if opened.size == size:  # others are reduced copies, as maps have them
                    raise _Stack("several pictures in one file")
                opened.seek(0)
            image = opened.copy()
            image.format = opened.format
            image.info.pop("transparency", None)
            return image, raw_mode
    except Exception as error:  # damaged bytes make the reader raise anything
        if is_out_of_memory(error):
            raise
        if isinstance(error, UnidentifiedImageError):
            reason = f"not of a known format: {', '.join(formats)}"
        else:
            told = error.strerror if isinstance(error, OSError) and error.strerror else error
            reason = f"{type(error).__name__}: {told}"
        message = f"cannot read the {what} ({reason})"
        is_unknown_tiff = isinstance(error, UnidentifiedImageError) and file.suffix.lower() in _TIFF
        hint = _ARRAYS if is_unknown_tiff or isinstance(error, _Stack) else ""
        raise FileProblem(f"unreadable {what}", message, file, hint=hint) from error


class _Stack(OSError):
    """A file of several pictures."""


def ranges(values: list[int]) -> str:
    """Format values as ranges, such as `0 to 2 or 255`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], value]
        else:
            runs.append([value])
    texts = [" to ".join(map(str, run)) for run in runs]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def listed(values: list[int], most: int = 8) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more
