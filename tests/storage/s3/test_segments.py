"""A ledger in segments: complete, whole, written once."""

from __future__ import annotations

import pytest

from study.core.errors import InputError
from study.storage.s3.bucket import Bucket, Conflict
from study.storage.s3.segments import Segment, read_segments, segments, write_segment

LINES = [f"{'line' * count}\n".encode() for count in range(1, 12)]


def write(place: Bucket) -> list[Segment]:
    written: list[Segment] = []
    for number, line in enumerate(LINES):
        start = written[-1].end if written else 0
        written.append(Segment(number, start, len(line)))
        write_segment(place, written[-1], line)
    return written


def test_segments_one_after_the_other_are_the_ledger(place: Bucket) -> None:
    assert segments(place) == []
    written = write(place)
    assert segments(place) == written
    assert list(read_segments(place, segments(place))) == LINES
    assert written[-1].key == "ledger/00000010.jsonl"


def test_a_segment_is_written_once(place: Bucket) -> None:
    first = write(place)[0]
    with pytest.raises(Conflict):
        write_segment(place, first, b"other\n")


def test_a_missing_segment_is_named(place: Bucket) -> None:
    write(place)
    place.delete(["ledger/00000003.jsonl"])
    with pytest.raises(InputError) as caught:
        segments(place)
    assert str(caught.value) == (
        f"{place.where}: the next segment of the ledger must be ledger/00000003.jsonl, "
        "but it is ledger/00000004.jsonl"
    )


def test_a_torn_segment_is_named(place: Bucket) -> None:
    write(place)
    content = place.get("ledger/00000003.jsonl")
    assert content is not None
    place.put("ledger/00000003.jsonl", content.data[:5], metadata=content.metadata)
    with pytest.raises(InputError) as caught:
        list(read_segments(place, segments(place)))
    assert str(caught.value).startswith(f"{place.where}/ledger/00000003.jsonl: a segment's SHA-256")
    place.delete(["ledger/00000010.jsonl"])
    with pytest.raises(InputError, match="segment of the ledger must be there, but is gone"):
        list(read_segments(place, [Segment(10, 0, 5)]))
