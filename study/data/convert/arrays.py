"""Arrays and deep pictures as pictures of 8 bits: `python -m study.data convert arrays SRC DST`.

    images/a.npy  masks/a.npy        one array a file: (H, W), (H, W, C) or (C, H, W)
    train/a.npz  a.mat  a.h5         several arrays a file, each under its own name
    images.npy  volume.tif  a.nii    stacks of pictures, whose names get a number
    train-00000.parquet              Hugging Face's columns of pictures

Labels keep their values: whole numbers in areas, one channel a class (one-hot), or true and false.
Values below 0 become 255. Images of more than 8 bits or of fractions are brought to 0..255, by one
range for all of a folder: 0..1 where it fits, else the 0.1 % and 99.9 % quantiles of some of them.
Pictures of 8 bits, lists and tables are copied.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from study.core.errors import InputError
from study.core.files import is_free
from study.data.convert.export import IMAGE_SUFFIXES, split_of
from study.data.convert.write import whole_folder
from study.data.formats.folder_hints import is_label
from study.data.scan import files_below

_COPIED = (".txt", ".csv", ".tsv", ".lst", ".list", ".json", ".jsonl", ".yaml", ".yml")
_OURS = ("classes.yaml", "task.yaml")
_DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # Pillow's modes of more than 8 bits
_AS_RGB = ("RGBA", "CMYK", "YCbCr")  # those that become RGB
_CHANNELS = 16  # the most that one picture has
_FEW, _SOME = 64, 20  # values of labels; arrays of a place that are looked at
_ALIKE = 0.5  # of the neighbouring pixels of a label have one value at least
_LABEL_END = re.compile(r"[-_. ](gt|seg(mentation)?|labels?|masks?)$", re.IGNORECASE)
_MODALITY = "_0000"  # behind the names of nnU-Net's images, of which there may be several
_QUANTILES = (0.001, 0.999)
_NIFTI = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}


@dataclass
class _Stored:
    """An array of a file.

    Attributes:
        key: its name in the file; "" where it is the only one.
        is_stack: whether its first axis counts pictures; None if its shape must tell.
        row: of a table, which has one picture in each.
    """

    file: Path
    key: str
    array: NDArray[Any]
    is_stack: bool | None = None
    row: int | None = None


@dataclass
class _Place:
    """What has the same role: the arrays of one name in a folder, or those of a stack.

    Attributes:
        above: of a stack that has no name in its file, the folder of the file.
        into: the folder that its pictures go to, below the target.
        modality: what its name has behind that of its label, where volumes differ in this.
    """

    into: str
    above: str | None = None
    modality: str = ""
    is_label: bool = True
    values: list[NDArray[Any]] = field(default_factory=list)
    span: tuple[float, float] = (0.0, 1.0)


@dataclass
class Arrays:
    """What was written. notes: counts, each with the words that follow the number."""

    pictures: int = 0
    roles: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


def convert_arrays(
    root: Path,
    target: Path,
    *,
    span: tuple[float, float] | None = None,
    bands: Sequence[int] = (),
) -> Arrays:
    """Write the pictures of a folder of arrays to a folder that is new or empty.

    Args:
        root: the folder of the arrays.
        target: the new folder.
        span: the values of images that become 0 and 255.
        bands: from 1 on, the three of an image's channels that become red, green and blue.

    Raises:
        InputError: for the first array that cannot be used; then nothing is written.
    """
    if not root.is_dir():
        raise InputError("must be a folder", file=root)
    if not is_free(target):
        raise InputError("DST must be a new or an empty folder", file=target)
    files = [one for one in files_below(root) if one.name not in _OURS]
    places = _places(root, files, span)
    written = Arrays()
    for one in places.values():
        low, high = one.span
        written.roles[one.into] = (
            "labels" if one.is_label else f"images, of which {low:g}..{high:g} becomes 0..255"
        )
    with whole_folder(target) as folder:
        for file in files:
            _write(root, file, folder, places, bands, written)
        if not written.pictures:
            hint = ""
            if any(one.suffix.lower() == ".parquet" for one in files):
                hint = "`convert rle` reads run-length codes in .parquet"
            raise InputError("found no arrays or deep pictures", hint=hint, file=root)
    return written


def _places(
    root: Path, files: Sequence[Path], span: tuple[float, float] | None
) -> dict[str, _Place]:
    """The places of all arrays, with their roles."""
    places: dict[str, _Place] = {}
    for file in files:
        for one in _stored(file):
            name = _place(root, one)
            place = places.setdefault(name, _Place(name))
            if _is_stack(one) and not one.key:
                place.above = one.file.parent.relative_to(root).as_posix()
            if len(place.values) < _SOME:
                place.values.append(one.array)
    for name, place in places.items():
        place.is_label = _are_labels(place.values, name)
    for above in {place.above for place in places.values() if place.above is not None}:
        some = [place for place in places.values() if place.above == above]
        if len(some) > 1 and len({place.is_label for place in some}) == 1:  # volumes, side by side
            for place in some:
                place.into = above
        elif len(some) > 2 and not any(map(split_of, _without_prefix(some))):
            _name_modalities(some)
            for place in some:
                what = "labels" if place.is_label else f"images{place.modality}"
                place.into = (Path(above) / what).as_posix()
    ranges: dict[str, list[_Place]] = {}
    for place in [place for place in places.values() if not place.is_label]:
        into = place.into  # of volumes that are beside their labels one range, whatever the folder
        is_beside = _is_beside(place, f"images{place.modality}")
        ranges.setdefault(place.modality if is_beside else into, []).append(place)
    for some in ranges.values():
        values = [one for place in some for one in place.values]
        for place in some:
            place.span = span or _span(values, root / some[0].into)
    for place in places.values():
        place.values.clear()
    return places


def _without_prefix(places: Sequence[_Place]) -> list[str]:
    """The names of volumes without the words that all of them begin with."""
    names = [Path(place.into).name for place in places]
    shared = os.path.commonprefix(names)  # noqa: RUF071  (of characters)
    words = re.match(r"(.*[-_. ])?", shared)
    return [name.removeprefix(words[0] if words else "") for name in names]


def _name_modalities(places: Sequence[_Place]) -> None:
    """Tell several volumes of one label, such as a_t1.nii and a_t2.nii beside a_seg.nii."""
    labels = [_LABEL_END.sub("", Path(place.into).name) for place in places if place.is_label]
    behind = {
        place.into: Path(place.into).name.removeprefix(label)
        for label in sorted(labels, key=len)
        for place in places
        if not place.is_label and Path(place.into).name.startswith(label)
    }
    if len({*behind.values()}) > 1:
        for place in places:
            place.modality = behind.get(place.into, "")


def _is_beside(place: _Place, what: str) -> bool:
    """Whether these are the images or labels of a folder that holds volumes of both."""
    return place.above is not None and place.into == (Path(place.above) / what).as_posix()


def _place(root: Path, one: _Stored) -> str:
    """The folder that an array's pictures go to, below the target."""
    above = one.file.parent.relative_to(root)
    if one.file.suffix.lower() == ".parquet":
        return (Path(split_of(one.file.stem)) / one.key).as_posix()
    if _is_stack(one) and not one.key:
        return (above / _stem(one.file)).as_posix()
    return (above / one.key).as_posix()


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rpartition(".")[0]


def _is_stack(one: _Stored) -> bool:
    shape = one.array.shape
    if one.is_stack is not None:
        return one.is_stack
    return len(shape) == 4 or (len(shape) == 3 and shape[-1] > _CHANNELS and shape[0] > _CHANNELS)


def _are_labels(arrays: Sequence[NDArray[Any]], name: str) -> bool:
    """Whether arrays hold few whole numbers in areas, or more where they are called labels."""
    values: set[float] = set()
    pairs = alike = 0
    for one in arrays:
        if one.dtype == bool:
            continue
        if one.dtype.kind == "f" and not (np.isfinite(one).all() and (one == np.rint(one)).all()):
            return False
        values.update(np.unique(one).tolist())
        across = one[..., 1:, :] == one[..., :-1, :]  # along H or W, whatever the order of axes
        pairs, alike = pairs + across.size, alike + int(across.sum())
    if pairs and alike < _ALIKE * pairs:
        return False
    return len(values) <= _FEW or is_label(name.rpartition("/")[2])


def _span(arrays: Sequence[NDArray[Any]], folder: Path) -> tuple[float, float]:
    """The values of images that become 0 and 255. folder: of the images."""
    if all(one.dtype == np.uint8 for one in arrays):
        return 0.0, 255.0
    some = np.concatenate([one[np.isfinite(one)].ravel()[::7].astype(np.float64) for one in arrays])
    if not some.size:
        raise InputError("the images hold no finite value", file=folder)
    if arrays[0].dtype.kind == "f" and some.min() >= 0 and some.max() <= 1:
        return 0.0, 1.0
    low, high = np.quantile(some, _QUANTILES).tolist()
    return float(low), float(high if high > low else low + 1)


def _write(
    root: Path, file: Path, folder: Path, places: dict[str, _Place], bands: Sequence[int],
    written: Arrays,
) -> None:  # fmt: skip
    """Write the pictures of a file, or a copy of it."""
    arrays = [*_stored(file)]
    suffix = file.suffix.lower()
    if not arrays and suffix in (*IMAGE_SUFFIXES, *_COPIED):
        copy = folder / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        written.notes["files copied as they are"] += 1
    elif not arrays and suffix != ".parquet":
        written.notes["files that are neither, left out"] += 1
    for one in arrays:
        name = _place(root, one)
        place, stack = places[name], _is_stack(one)
        for number, part in enumerate(one.array if stack else [one.array]):
            if place.is_label:
                made = _label(part, one, written)
            else:
                made = _image(part, one, place, bands, written)
            stem = "" if place.above is not None and place.into == name else _stem(file)
            stem = stem.removesuffix(place.modality)
            stem = stem.removesuffix(_MODALITY) if place.above is not None else stem
            if _is_beside(place, "labels"):
                stem = _LABEL_END.sub("", stem) or stem
            at = number if stack else one.row
            parts = (stem, "" if at is None else f"{at:03d}")
            path = folder / place.into / f"{'_'.join(filter(None, parts))}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(made).save(path)
            written.pictures += 1


def _channels_last(part: NDArray[Any], one: _Stored) -> NDArray[Any]:
    """(H, W) or (H, W, C)."""
    if part.ndim == 3 and 1 in (part.shape[0], part.shape[-1]):
        part = part.squeeze(0 if part.shape[0] == 1 else -1)
    if part.ndim == 3 and part.shape[0] <= _CHANNELS < part.shape[-1]:
        part = np.moveaxis(part, 0, -1)
    if part.ndim not in (2, 3) or (part.ndim == 3 and part.shape[-1] > _CHANNELS):
        message = f"must be (H, W), (H, W, C), (C, H, W) or a stack of these, got {one.array.shape}"
        raise InputError(message, file=one.file, key=one.key)
    return part


def _label(part: NDArray[Any], one: _Stored, written: Arrays) -> NDArray[Any]:
    """(H, W) of whole numbers, or (H, W, 3) of colours."""
    part = _channels_last(part, one)
    if part.dtype == bool:
        part = part.astype(np.uint8)
    if part.ndim == 3:
        if part.dtype == np.uint8 and part.shape[-1] == 3 and part.max() > 1:
            return part
        if part.min() >= 0 and part.max() > 1 and (part > 0).sum(-1).max() == 1:
            written.notes["labels whose channels number objects, of which the channel is kept"] += 1
            part = (part > 0).astype(np.uint8)
        whole = part.sum(-1)
        if part.min() < 0 or part.max() > 1 or whole.max() > 1:
            count = part.shape[-1]
            message = f"the {count} channels of a label must be 0 or 1, one of them a pixel"
            hint = f"write each label of a stack of at most {_CHANNELS} into a file of its own"
            raise InputError(message, hint=hint, file=one.file, key=one.key)
        written.notes["labels of a channel for each class"] += 1
        part = part.argmax(-1) if whole.min() == 1 else np.where(whole == 1, part.argmax(-1) + 1, 0)
    if part.min() < 0:
        written.notes["labels with values below 0, which are 255 now"] += 1
        part = np.where(part < 0, 255, part)
    if part.max() > 65535:
        raise InputError(
            f"labels must be below 65536, got {part.max()}", file=one.file, key=one.key
        )
    return np.asarray(part.astype(np.uint8 if part.max() <= 255 else np.uint16))


def _image(
    part: NDArray[Any], one: _Stored, place: _Place, bands: Sequence[int], written: Arrays
) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3)."""
    part = _channels_last(part, one)
    if part.ndim == 3:
        count = part.shape[-1]
        chosen = [*bands] or ([1, 2, 2] if count == 2 else [1, 2, 3])
        if max(chosen) > count:
            message = f"there are {count} bands, got {max(chosen)}"
            raise InputError(message, file=one.file, key="--bands")
        if count != 3:
            written.notes[f"images of {count} bands, of which {chosen} are kept (--bands)"] += 1
        part = part[..., [at - 1 for at in chosen]]
    low, high = place.span
    if part.dtype == np.uint8 and place.span == (0.0, 255.0):
        return np.asarray(part)
    scaled = (np.nan_to_num(part.astype(np.float64), nan=low) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _stored(file: Path) -> Iterator[_Stored]:
    """The arrays of a file; none where it is a picture of 8 bits or something else."""
    suffix = "".join(file.suffixes[-2:]).lower()
    suffix = suffix if suffix == ".nii.gz" else file.suffix.lower()
    read = {
        ".npy": _numpy, ".npz": _numpy, ".mat": _matlab, ".h5": _hdf5, ".hdf5": _hdf5,
        ".nii": _nifti, ".nii.gz": _nifti, ".parquet": _parquet,
    }.get(suffix, _picture if suffix in IMAGE_SUFFIXES else None)  # fmt: skip
    if read is None:
        return
    try:
        found = [*read(file)]
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the readers raise anything
        message = f"cannot read the arrays ({type(error).__name__}: {error})"
        raise InputError(message, file=file) from error
    for one in found:
        if one.array.ndim > 1 and one.array.dtype.kind in "buif" and one.array.size:
            yield one


def _numpy(file: Path) -> Iterator[_Stored]:
    found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray):
        yield _Stored(file, "", found)
    else:
        yield from (_Stored(file, key, found[key]) for key in found.files)


def _matlab(file: Path) -> Iterator[_Stored]:
    from scipy.io import loadmat

    try:
        found = loadmat(file)
    except NotImplementedError:  # from version 7.3 on these are HDF5
        yield from _hdf5(file)
        return
    for key, one in found.items():
        if not key.startswith("__") and isinstance(one, np.ndarray):
            yield from (_Stored(file, name, array) for name, array in _fields(key, one))


def _fields(key: str, one: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays in a structure of MATLAB, each with the names on the way to it."""
    inner = one.ravel()[0] if one.size == 1 and (one.dtype.names or one.dtype == object) else None
    if one.dtype.names and inner is not None:
        for name in one.dtype.names:
            if isinstance(inner[name], np.ndarray):
                yield from _fields(f"{key}_{name}", inner[name])
    elif isinstance(inner, np.ndarray):
        yield from _fields(key, inner)
    else:
        yield key, one


def _lacks(package: str, what: str, file: Path) -> InputError:
    hint = f"install it: pip install -e '.[convert]', or pip install {package}"
    return InputError(f"{what} needs the package {package}", hint=hint, file=file)


def _hdf5(file: Path) -> Iterator[_Stored]:
    try:
        import h5py
    except ImportError as error:
        raise _lacks("h5py", "HDF5", file) from error
    found: list[tuple[str, Any]] = []
    with h5py.File(file) as opened:
        opened.visititems(
            lambda key, one: found.append((key, one[()])) if hasattr(one, "shape") else None
        )
    yield from (_Stored(file, key.replace("/", "_"), np.asarray(one)) for key, one in found)


def _nifti(file: Path) -> Iterator[_Stored]:
    """The slices along the third axis of a volume, with its values as its scale says."""
    content = file.read_bytes()
    content = gzip.decompress(content) if file.suffix.lower() == ".gz" else content
    order = "<" if int.from_bytes(content[:4], "little") == 348 else ">"
    shape = np.frombuffer(content, f"{order}i2", 8, 40)
    code = int(np.frombuffer(content, f"{order}i2", 1, 70)[0])
    offset, slope, intercept = np.frombuffer(content, f"{order}f4", 3, 108).tolist()
    if code not in _NIFTI or content[344:346] not in (b"n+", b"ni"):
        raise InputError(
            f"not a NIfTI volume of numbers that are known, got code {code}", file=file
        )
    sides = [side for side in shape[1 : 1 + shape[0]].tolist() if side > 1]
    volume = np.frombuffer(content, order + _NIFTI[code], int(np.prod(sides)), int(offset))
    volume = volume.reshape(sides, order="F").T
    if slope not in (0, 1) or (intercept and slope):
        volume = volume * slope + intercept
    if len(sides) == 4 and sides[-1] <= _CHANNELS:
        volume = np.moveaxis(volume, 0, -1)  # the modalities of each slice are its bands
    elif len(sides) not in (2, 3):
        allowed = f"2 or 3 axes, or 4 of which the last has at most {_CHANNELS} modalities"
        raise InputError(f"the volume has the sides {sides}", allowed=allowed, file=file)
    yield _Stored(file, "", volume, is_stack=len(sides) > 2)


def _parquet(file: Path) -> Iterator[_Stored]:
    """The pictures of columns {bytes, path}, row by row."""
    import pandas as pd

    for key, column in pd.read_parquet(file).items():
        if len(column) and isinstance(column.iloc[0], dict) and "bytes" in column.iloc[0]:
            for row, one in enumerate(column):
                with Image.open(io.BytesIO(one["bytes"])) as stored:
                    shown = stored.convert("RGB") if stored.mode in _AS_RGB else stored
                    yield _Stored(file, str(key), np.asarray(shown), is_stack=False, row=row)


def _picture(file: Path) -> Iterator[_Stored]:
    """A picture of more than 8 bits, or several of one size in a file."""
    try:
        with Image.open(file) as picture:
            frames = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
            if frames > 1:
                size, found = picture.size, []
                for at in range(frames):
                    picture.seek(at)
                    if picture.size == size:
                        found.append(np.asarray(picture))
                stack = np.stack(found)
                if (
                    1 < len(found) <= _CHANNELS and ((stack > 0).sum(0) == 1).all()
                ):  # a page a class
                    yield _Stored(file, "", (stack > 0).astype(np.uint8), is_stack=False)
                else:
                    yield _Stored(file, "", stack, is_stack=len(found) > 1)
            elif picture.mode in _DEEP:
                yield _Stored(file, "", np.asarray(picture), is_stack=False)
    except (OSError, SyntaxError):
        if file.suffix.lower() not in (".tif", ".tiff"):
            return
        try:
            import tifffile
        except ImportError as error:
            raise _lacks("tifffile", "this TIFF", file) from error
        yield _Stored(file, "", tifffile.imread(file))
