"""A ledger in segments: complete, whole, written once."""

from __future__ import annotations

import pytest

from study.core.errors import InputError
from study.storage.s3.bucket import Conflict, S3Prefix
from study.storage.s3.segments import Segment, read_segments, segments, write_segment

LINES = [f"{'line' * count}\n".encode() for count in range(1, 12)]


def write(prefix: S3Prefix) -> list[Segment]:
    written: list[Segment] = []
    for number, line in enumerate(LINES):
        start = written[-1].end if written else 0
        written.append(Segment(number, start, len(line)))
        write_segment(prefix, written[-1], line)
    return written


def test_segments_one_after_the_other_are_the_ledger(prefix: S3Prefix) -> None:
    assert segments(prefix) == []
    written = write(prefix)
    assert segments(prefix) == written
    assert list(read_segments(prefix, segments(prefix))) == LINES
    assert written[-1].key == "ledger/00000010.jsonl"


def test_a_segment_is_written_once(prefix: S3Prefix) -> None:
    first = write(prefix)[0]
    with pytest.raises(Conflict):
        write_segment(prefix, first, b"other\n")


def test_a_missing_segment_is_named(prefix: S3Prefix) -> None:
    write(prefix)
    prefix.delete(["ledger/00000003.jsonl"])
    with pytest.raises(InputError) as caught:
        segments(prefix)
    assert str(caught.value) == (
        f"{prefix.where}: segment ledger/00000003.jsonl of the ledger is missing, "
        "found ledger/00000004.jsonl"
    )


def test_a_torn_segment_is_named(prefix: S3Prefix) -> None:
    write(prefix)
    content = prefix.get("ledger/00000003.jsonl")
    assert content is not None
    prefix.put("ledger/00000003.jsonl", content.data[:5], metadata=content.metadata)
    with pytest.raises(InputError) as caught:
        list(read_segments(prefix, segments(prefix)))
    assert str(caught.value).startswith(
        f"{prefix.where}/ledger/00000003.jsonl: this segment of the ledger is damaged"
    )
    prefix.delete(["ledger/00000010.jsonl"])
    with pytest.raises(InputError, match="this segment of the ledger is gone"):
        list(read_segments(prefix, [Segment(10, 0, 5)]))
