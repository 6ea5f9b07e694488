"""An S3 server on loopback, for real: moto in a process of its own, which a test can stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import boto3

from study.storage.s3.bucket import Item, S3Prefix

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
BUCKET = "studies"


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Watched(S3Prefix):
    """A prefix whose calls a test hears of, and may let fail: `before` hears of a put's key and
    data, `after` of its key once it is written, `listing` of what is listed."""

    before: Callable[[str, bytes | BinaryIO], None] = _nothing
    after: Callable[[str], None] = _nothing
    listing: Callable[[str], None] = _nothing

    @classmethod
    def of(
        cls,
        prefix: S3Prefix,
        *,
        before: Callable[[str, bytes | BinaryIO], None] = _nothing,
        after: Callable[[str], None] = _nothing,
        listing: Callable[[str], None] = _nothing,
    ) -> Watched:
        """The same prefix, watched."""
        return cls(**vars(prefix), before=before, after=after, listing=listing)

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        new: bool = False,
        replacing: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        self.before(key, data)
        etag = super().put(key, data, new=new, replacing=replacing, metadata=metadata)
        self.after(key)
        return etag

    def items(self, below: str = "") -> Iterator[Item]:
        self.listing(below)
        return super().items(below)


class Server:
    """Listens on `port`; `uri` is a prefix of its own in it."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()
        self._make_bucket()

    def _wait(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            assert self._process.poll() is None, "the S3 server has ended"
            time.sleep(0.05)
        raise AssertionError("the S3 server does not answer")

    def _make_bucket(self) -> None:
        client = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test").client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1"
        )
        client.create_bucket(Bucket=BUCKET)

    def uri(self, prefix: str, bucket: str = BUCKET) -> str:
        query = f"endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        return f"s3://{bucket}/{prefix}?{query}"

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Takes connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
