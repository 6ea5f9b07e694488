"""Reads and writes below a prefix of an S3 bucket; every error is one line.

The address is ``s3://BUCKET/PREFIX``, for servers other than Amazon's, with Arrow's names,
``?endpoint_override=HOST:PORT&scheme=http&region=REGION``. boto3 finds the credentials: in the
environment, ``~/.aws``, or the machine's role. No call waits longer than a minute.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from study.core.errors import InputError
from study.core.files import whole

SCHEME = "s3"
SETTINGS = ("endpoint_override", "scheme", "region")
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 20, 2
AT_ONCE = 8  # concurrent calls of one process
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ENDPOINT = re.compile(r"(https?://)?[\w.-]+(:\d{1,5})?/?")
PER_CALL = 1000  # most keys that one call lists or deletes
REFUSED = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "access denied; the study must read and write here",
    "InvalidAccessKeyId": "unknown access key",
    "SignatureDoesNotMatch": "wrong secret key",
    "ExpiredToken": "the credentials have expired",
}
NO_CREDENTIALS = (
    "no AWS credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws or "
    "the machine's role"
)


class StorageUnavailable(Exception):
    """The bucket does not answer, or refuses; the text is one line."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, " ".join(reason.split())
        super().__init__(f"{where}: {self.reason}")

    def as_input_error(self, key: str = "--storage") -> InputError:
        """The same error for a command that cannot work without the bucket."""
        return InputError(self.reason, file=self.where, key=key)


class Conflict(Exception):
    """The condition of a conditional write does not hold: the object exists or has changed."""


@dataclass(frozen=True)
class Item:
    """An object in a listing: its key below the prefix, bytes, entity tag and last change."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Content:
    """An object: bytes, entity tag, metadata, and its age by the bucket's own clock."""

    data: bytes
    etag: str
    metadata: Mapping[str, str]
    age: timedelta


def is_remote(storage: str | Path) -> bool:
    """Whether the storage is an address, not a folder."""
    return "://" in str(storage)


@dataclass(frozen=True)
class S3Prefix:
    """All keys that begin with `prefix`, which is empty or ends with a slash.

    per_call: keys that one call lists or deletes. read_seconds: for which a silent server is
    waited for.
    """

    name: str
    prefix: str
    query: str = ""
    per_call: int = PER_CALL
    read_seconds: float = READ_SECONDS

    @classmethod
    def parse(cls, uri: str, *, key: str = "--storage") -> S3Prefix:
        """Parse an ``s3://`` address without contacting the server. Raises InputError."""
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise InputError(f"invalid address: {error}", key=key) from error
        if parts.scheme != SCHEME:
            message = f"the storage must be a folder or an s3:// address, got {uri!r}"
            raise InputError(message, key=key)
        if "@" in parts.netloc:
            hint = "set them in the environment"
            raise InputError("the address contains credentials", hint=hint, key=key)
        if not BUCKET_NAME.fullmatch(parts.netloc):
            raise InputError(f"s3:// must be followed by a bucket's name, got {uri!r}", key=key)
        named = [setting for setting, _ in parse_qsl(parts.query, keep_blank_values=True)]
        for setting in named:
            if setting not in SETTINGS:
                raise InputError.unknown("setting", setting, SETTINGS, key=key)
            if named.count(setting) > 1:
                raise InputError(f"duplicate setting {setting!r}", key=key)
        if parts.fragment:
            raise InputError("an address of the storage has no '#'", key=key)
        given = dict(parse_qsl(parts.query))
        if given.get("scheme", "https") not in ("http", "https"):
            raise InputError(f"scheme must be http or https, got {given['scheme']!r}", key=key)
        if not ENDPOINT.fullmatch(given.get("endpoint_override", "localhost")):
            wrong = given["endpoint_override"]
            raise InputError(f"endpoint_override must be HOST:PORT, got {wrong!r}", key=key)
        path = parts.path.strip("/")
        return cls(parts.netloc, f"{path}/" if path else "", parts.query)

    @property
    def uri(self) -> str:
        """The address, as `parse` accepts it."""
        path = f"{SCHEME}://{self.name}/{self.prefix}".rstrip("/")
        return f"{path}?{self.query}" if self.query else path

    @property
    def where(self) -> str:
        """The address for messages: without the settings."""
        return f"{SCHEME}://{self.name}/{self.prefix}".rstrip("/")

    @property
    def endpoint(self) -> str:
        """The server in the address; empty for Amazon's."""
        return dict(parse_qsl(self.query)).get("endpoint_override", "")

    def below(self, name: str) -> S3Prefix:
        """The prefix `name` below this one."""
        return replace(self, prefix=f"{self.prefix}{name}/")

    def check(self, *, key: str = "--storage") -> None:
        """Raise InputError unless this machine can write, read, list and delete here."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.put(probe, b"")
            self.get(probe)
            self.delete([probe])
            next(self.items(probe), None)
        except StorageUnavailable as error:
            raise error.as_input_error(key) from error

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        new: bool = False,
        replacing: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Write an object atomically; return its entity tag.

        new: only if it does not exist. replacing: only if its entity tag is still this one. Raises
        Conflict if that does not hold, StorageUnavailable for all other errors.
        """
        condition = {"IfNoneMatch": "*"} if new else {"IfMatch": replacing} if replacing else {}
        answer = self._call(
            "put_object",
            Key=self.prefix + key,
            Body=data,
            Metadata=dict(metadata or {}),
            **condition,
        )
        return str(answer["ETag"])

    def get(self, key: str) -> Content | None:
        """Read an object; None if it does not exist."""
        answer = self._found(key)
        if answer is None:
            return None
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        with _in_one_line(self.where):
            data = answer["Body"].read()
        age = now - answer["LastModified"]
        return Content(data, answer["ETag"], answer.get("Metadata", {}), age)

    def download(self, key: str, path: Path) -> bool:
        """Write an object to a file atomically; return False if it does not exist."""
        answer = self._found(key)
        if answer is None:
            return False
        with whole(path) as file, _in_one_line(self.where):
            for chunk in answer["Body"].iter_chunks(1 << 20):
                file.write(chunk)
        return True

    def items(self, below: str = "") -> Iterator[Item]:
        """Yield the objects whose keys begin with `below`, ordered by key."""
        for page in self._pages(Prefix=self.prefix + below):
            yield from self._entries(page)

    def top(self) -> tuple[list[Item], list[str]]:
        """List the objects directly below this prefix, and the names of its subfolders."""
        items: list[Item] = []
        folders: list[str] = []
        for page in self._pages(Prefix=self.prefix, Delimiter="/"):
            items += self._entries(page)
            found = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
            folders += [prefix.removeprefix(self.prefix).rstrip("/") for prefix in found]
        return items, folders

    def _entries(self, page: Any) -> list[Item]:
        return [
            Item(
                entry["Key"].removeprefix(self.prefix),
                entry["Size"],
                entry["ETag"].strip('"'),
                entry["LastModified"],
            )
            for entry in page.get("Contents", ())
            if not entry["Key"].endswith("/")  # consoles mark an empty folder so
        ]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; a missing one is not an error."""
        for start in range(0, len(keys), self.per_call):
            objects = [{"Key": self.prefix + key} for key in keys[start : start + self.per_call]]
            answer = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
            for problem in answer.get("Errors", ()):
                raise StorageUnavailable(self.where, _refusal(problem.get("Code", "")))

    def _found(self, key: str) -> Any:
        try:
            return self._call("get_object", Key=self.prefix + key)
        except FileNotFoundError:
            return None

    def _pages(self, **arguments: str) -> Iterator[Any]:
        more: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", MaxKeys=self.per_call, **arguments, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, method: str, **arguments: Any) -> Any:
        with _in_one_line(self.where):
            return getattr(_client(self.query, self.read_seconds), method)(
                Bucket=self.name, **arguments
            )


@lru_cache
def _client(query: str, read_seconds: float) -> Any:
    """The boto3 client that all threads of the process share."""
    import boto3
    from botocore.config import Config

    settings = dict(parse_qsl(query))
    endpoint = settings.get("endpoint_override")
    if endpoint and "://" not in endpoint:
        endpoint = f"{settings.get('scheme', 'https')}://{endpoint}"
    config = Config(
        max_pool_connections=2 * AT_ONCE,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        s3={"addressing_style": "path"} if endpoint else None,
        user_agent_extra="segmentation-loss-study",
    )
    return boto3.Session().client(
        SCHEME, endpoint_url=endpoint, region_name=settings.get("region"), config=config
    )


@contextmanager
def _in_one_line(where: str) -> Iterator[None]:
    """Turn boto3's exceptions into StorageUnavailable, Conflict or FileNotFoundError."""
    from botocore import exceptions as raised

    try:
        yield
    except raised.ClientError as error:
        problem = error.response["Error"]
        code = str(problem["Code"])
        if code in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise Conflict(code) from error
        if code == "NoSuchKey":
            raise FileNotFoundError(code) from error
        raise StorageUnavailable(where, _refusal(code, str(problem.get("Message", "")))) from error
    except (raised.NoCredentialsError, raised.PartialCredentialsError) as error:
        raise StorageUnavailable(where, NO_CREDENTIALS) from error
    except (raised.ConnectionError, raised.HTTPClientError) as error:
        raise StorageUnavailable(where, f"the storage does not answer: {error}") from error
    except raised.BotoCoreError as error:
        raise StorageUnavailable(where, f"cannot use the storage: {error}") from error


def _refusal(code: str, message: str = "") -> str:
    if code in REFUSED:
        return REFUSED[code]
    if code == "403":
        return REFUSED["AccessDenied"]
    return f"the storage refuses the request: {code} {message}"
