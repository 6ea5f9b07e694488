"""Cache of decoded splits: memory-mapped arrays that all processes of a machine share.

    <cache>/<name>-<key>/   {train,val,test}.{images,labels,groups,class_counts}.npy, meta.json

Each data set (format, settings, root) has one folder, which is rebuilt when its files or this code
change. A folder is built under a temporary name, synced to disk and then renamed, so it is always
complete; a lock file lets one process build while the others wait. The kernel shares the pages of a
map and can drop them at any time, so memory use does not grow with the number of trials.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from study.core.errors import InputError, is_out_of_memory
from study.core.files import expanded
from study.data.objects import Survey, Surveyor
from study.data.progress_bar import progress
from study.data.repeats import Place, find_repeats
from study.data.splits import (
    SPLITS,
    Decoded,
    FileProblem,
    Repeat,
    SegmentationData,
    Source,
    Split,
    SplitSource,
    UInt8Array,
    content_header,
    count_classes,
    fingerprint_header,
)

_CACHE_VARIABLE = "STUDY_CACHE_DIR"
ELSEWHERE = f"set ${_CACHE_VARIABLE} to another folder"
_CHUNK = 32  # images decoded at a time: bounds memory
_LOCK_SECONDS = 0.1  # between two tries at a lock


def default_cache_dir() -> Path:
    """The folder of all caches: $STUDY_CACHE_DIR, else ~/.cache/segmentation-loss-study."""
    given = os.environ.get(_CACHE_VARIABLE)
    return (
        expanded(given, f"${_CACHE_VARIABLE}")
        if given
        else Path.home() / ".cache/segmentation-loss-study"
    )


def open_cached(
    source: Source,
    cache_dir: Path | None = None,
    on_progress: Callable[[], object] | None = None,
) -> SegmentationData:
    """Return the memory-mapped data set of `source`; decode it first if the cache lacks it.

    `on_progress` is called after each decoded image, and while another process decodes.

    Raises InputError for a file that cannot be used, with the number of files that have the same
    fault, and when the cache cannot be written or does not fit.
    """
    directory = cache_dir or default_cache_dir()
    folder = directory / f"{source.name}-{_digest(json.dumps(source.key, sort_keys=True))[:12]}"
    state = _digest(source.state + _code_digest())
    alive = on_progress or _nothing
    with locked(folder, alive):
        data = _load(source, folder, state)
        if data is None:
            _build(source, folder, state, alive)
            data = _load(source, folder, state)
    if data is None:
        raise InputError("cannot read back the data cache that was just written", file=folder)
    return data


def _nothing() -> None:
    """Tell nobody that there is progress."""


@contextmanager
def locked(folder: Path, alive: Callable[[], object]) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases the lock of a process that dies."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = _no_pipe(folder.parent / f"{folder.name}.lock").open("w")
        while not _taken(handle):
            alive()
            time.sleep(_LOCK_SECONDS)
    except OSError as error:
        raise _unusable(folder.parent, error) from error
    with handle:
        yield


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _load(source: Source, folder: Path, state: str) -> SegmentationData | None:
    """The cached data set; None if the cache is missing, stale or damaged."""
    try:
        meta = json.loads(_no_pipe(folder / "meta.json").read_text(encoding="utf-8"))
        if meta["state"] != state:
            return None
        splits = {
            name: Split(
                images=mapped(folder / f"{name}.images.npy"),
                labels=mapped(folder / f"{name}.labels.npy"),
                names=tuple(meta["names"][name]),
                groups=np.array(mapped(folder / f"{name}.groups.npy")),
                class_counts=np.array(mapped(folder / f"{name}.class_counts.npy")),
            )
            for name in SPLITS
        }
        if not all(_fits(source, splits[name], source.splits[name]) for name in SPLITS):
            return None
        repeats = tuple(
            Repeat((one, other), (first, second), is_plain)
            for (one, other), (first, second), is_plain in meta["repeats"]
        )
        survey = Survey.from_json(meta["survey"])
        fingerprint, warnings = meta["fingerprint"], tuple(map(str, meta["warnings"]))
        if not isinstance(fingerprint, str):
            return None
    except Exception as error:  # damaged files make the readers raise anything
        if is_out_of_memory(error):
            raise
        return None
    return SegmentationData(
        name=source.name,
        class_names=source.class_names,
        palette=source.palette,
        ignore_index=source.ignore_index,
        mean=source.mean,
        std=source.std,
        fingerprint=fingerprint,
        cache=folder,
        rule=source.rule,
        repeats=repeats,
        survey=survey,
        warnings=(*source.warnings, *warnings),
        **splits,
    )


def _fits(source: Source, split: Split, given: SplitSource) -> bool:
    """Whether the shapes and dtypes of the arrays are those that the source declares."""
    length, classes = len(given.names), len(source.class_names)
    expected = (
        (split.images, (length, *source.size, 3), np.uint8),
        (split.labels, (length, *source.size), np.uint8),
        (split.groups, (length,), np.int64),
        (split.class_counts, (length, classes), np.int64),
    )
    return split.names == given.names and all(
        (array.shape, array.dtype) == (shape, np.dtype(kind)) for array, shape, kind in expected
    )


def mapped(path: Path) -> np.memmap[Any, Any]:
    # Copy-on-write: torch warns about read-only arrays.
    return np.lib.format.open_memmap(_no_pipe(path), mode="c")


def _no_pipe(path: Path) -> Path:
    """The path. Raises OSError if something else than a file is there: a pipe would be waited for
    for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def _build(source: Source, folder: Path, state: str, alive: Callable[[], object]) -> None:
    prefix = f".{folder.name}."
    # Leftovers of processes that died: this process holds the lock.
    for left_over in folder.parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    _check_space(source, folder.parent)
    try:
        building = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    except OSError as error:
        raise _unusable(folder.parent, error) from error
    try:
        content = hashlib.sha256(
            fingerprint_header(source.class_names, source.ignore_index, source.mean, source.std)
        )
        num_images = sum(len(split.names) for split in source.splits.values())
        with progress(f"decoding {source.name}, once per machine", num_images) as advance:

            def step() -> None:
                advance()
                alive()

            of_files = any(split.files for split in source.splits.values())
            surveyor = Surveyor(len(source.class_names), of_files=of_files)
            checksums = {
                name: _write_split(building, name, source, content, surveyor, step)
                for name in SPLITS
            }
        meta = {
            "warnings": source.verdict() if source.verdict is not None else [],
            "state": state,
            "fingerprint": content.hexdigest(),
            "key": source.key,
            "names": {name: source.splits[name].names for name in SPLITS},
            "repeats": [astuple(one) for one in _repeats(building, source, checksums)],
            "survey": surveyor.result().as_json(),
        }
        (building / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        _sync(building)
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    except FileProblem as problem:
        raise problem.counted(_count_alike(source, problem, alive)) from problem
    except OSError as error:
        raise _unusable(folder.parent, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_split(
    building: Path,
    name: str,
    source: Source,
    content: Any,
    surveyor: Surveyor,
    advance: Callable[[], object],
) -> list[int]:
    """Write with plain writes, not a writable map: on a full disk a write fails, but a map kills
    the process. Returns the checksums of the images."""
    split, (height, width) = source.splits[name], source.size
    shape = (len(split.names), height, width)
    content.update(content_header((*shape, 3), split.groups))
    counts, checksums = [], []
    with (
        (building / f"{name}.images.npy").open("wb") as images,
        (building / f"{name}.labels.npy").open("wb") as labels,
    ):
        _start_npy(images, (*shape, 3))
        _start_npy(labels, shape)
        for decoded in _decoded(split):
            if isinstance(decoded, FileProblem):
                raise decoded
            image, label = decoded.image, decoded.label
            surveyor.add(name, decoded.measured)
            for file, array in ((images, image), (labels, label)):
                raw = np.ascontiguousarray(array).tobytes()
                content.update(raw)
                file.write(raw)
            checksums.append(zlib.crc32(np.ascontiguousarray(image).data))
            counts.append(count_classes(label, len(source.class_names)))
            advance()
    np.save(building / f"{name}.groups.npy", split.groups)
    np.save(building / f"{name}.class_counts.npy", np.stack(counts))
    return checksums


def _repeats(
    building: Path, source: Source, checksums: Mapping[str, Sequence[int]]
) -> tuple[Repeat, ...]:
    images = {name: mapped(building / f"{name}.images.npy") for name in SPLITS}

    def decoded(place: Place) -> UInt8Array:
        return np.asarray(images[place[0]][place[1]])

    def original(place: Place) -> UInt8Array:
        of = source.splits[place[0]].original
        return decoded(place) if of is None else of(place[1])

    def name(place: Place) -> str:
        split, index = source.splits[place[0]], place[1]
        return str(split.files[index]) if split.files else split.names[index]

    return find_repeats(checksums, decoded, original, name)


def _sync(folder: Path) -> None:
    """Flush the folder to disk. If the power fails soon after the rename, unwritten pages read as
    zeros, and zeros look like labels."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _start_npy(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _decoded(split: SplitSource) -> Iterator[Decoded | FileProblem]:
    """Decode images in order, a chunk at a time in threads; yield a FileProblem instead of raising
    it."""

    def read(index: int) -> Decoded | FileProblem:
        try:
            return split.read(index)
        except FileProblem as problem:
            return problem

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(split.names), _CHUNK):
            yield from pool.map(read, range(start, min(start + _CHUNK, len(split.names))))


def _count_alike(source: Source, problem: FileProblem, alive: Callable[[], object]) -> int:
    """Count the files of all splits that have the same fault."""
    count = 0
    for name in SPLITS:
        for item in _decoded(source.splits[name]):
            count += isinstance(item, FileProblem) and item.kind == problem.kind
            alive()
    return count


def _check_space(source: Source, directory: Path) -> None:
    num_images = sum(len(source.splits[name].names) for name in SPLITS)
    needed = num_images * source.size[0] * source.size[1] * 4 + 2**20
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise InputError(
            f"the data cache needs {needed / 2**20:.0f} MiB, this disk has "
            f"{free / 2**20:.0f} MiB free",
            hint=ELSEWHERE,
            file=directory,
        )


def _unusable(directory: Path, error: OSError) -> InputError:
    full = error.errno == errno.ENOSPC
    message = "no disk space left for the data cache" if full else "cannot write the data cache"
    return InputError(
        f"{message}: {error}" if not full else message, hint=ELSEWHERE, file=directory
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Digest of the code that draws and decodes; a change of that code invalidates every cache."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
