"""A ledger in a bucket, as numbered segments: ``ledger/00000000.jsonl`` and so on.

Each segment holds whole lines; concatenated in order they are the ledger. A segment is written once
and never changed, which the bucket enforces: two drivers cannot both write the next one. Its
SHA-256 is in its metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from study.core.errors import InputError
from study.storage.s3.bucket import AT_ONCE, S3Prefix

FOLDER = "ledger"
MAX_BYTES = 4 << 20
SHA256 = "sha256"


@dataclass(frozen=True)
class Segment:
    """Bytes `start` to `end` of a ledger."""

    number: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after the segment."""
        return self.start + self.size

    @property
    def key(self) -> str:
        """Its key below the study's prefix."""
        return f"{FOLDER}/{self.number:08d}.jsonl"


def segments(prefix: S3Prefix) -> list[Segment]:
    """List the existing segments, first to last. Raises InputError if one is missing."""
    found: list[Segment] = []
    for item in prefix.items(f"{FOLDER}/"):
        segment = Segment(len(found), found[-1].end if found else 0, item.size)
        if item.key != segment.key:
            raise InputError(
                f"segment {segment.key} of the ledger is missing, found {item.key}",
                file=prefix.where,
            )
        found.append(segment)
    return found


def read_segment(prefix: S3Prefix, segment: Segment) -> bytes:
    """Read a segment. Raises InputError if its bytes are not those that were written."""
    content = prefix.get(segment.key)
    if content is None:
        raise InputError("this segment of the ledger is gone", file=_at(prefix, segment))
    if hashlib.sha256(content.data).hexdigest() != content.metadata.get(SHA256):
        raise InputError(
            f"this segment of the ledger is damaged: its {len(content.data)} bytes do not have the "
            f"SHA-256 of its metadata ({content.metadata.get(SHA256, 'none')})",
            file=_at(prefix, segment),
        )
    return content.data


def read_segments(prefix: S3Prefix, wanted: Sequence[Segment]) -> Iterator[bytes]:
    """Yield the bytes of segments in order; several are fetched at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(wanted), 8 * AT_ONCE):
            part = wanted[start : start + 8 * AT_ONCE]
            yield from pool.map(lambda segment: read_segment(prefix, segment), part)


def write_segment(prefix: S3Prefix, segment: Segment, data: bytes) -> None:
    """Write the next segment. Raises Conflict if it exists already."""
    prefix.put(segment.key, data, new=True, metadata={SHA256: hashlib.sha256(data).hexdigest()})


def _at(prefix: S3Prefix, segment: Segment) -> str:
    return f"{prefix.where}/{segment.key}"
