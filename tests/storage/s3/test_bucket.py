"""A prefix in a bucket: what is written is read; every refusal is one line, and none takes long."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from study import run, status
from study.core.errors import InputError
from study.storage.s3.bucket import Conflict, S3Prefix, StorageUnavailable


def test_what_is_put_is_found_listed_and_deleted(prefix: S3Prefix, tmp_path: Path) -> None:
    prefix.put("a/1", b"one", metadata={"sha256": "x"})
    prefix.below("a").put("2", b"two")
    content = prefix.get("a/1")
    assert content is not None
    assert (content.data, content.metadata) == (b"one", {"sha256": "x"})
    assert 0 <= content.age.total_seconds() < 60
    assert [(item.key, item.size) for item in prefix.items("a/")] == [("a/1", 3), ("a/2", 3)]
    prefix.put("top", b"")
    assert ([item.key for item in prefix.top()[0]], prefix.top()[1]) == (["top"], ["a"])
    assert prefix.download("a/2", tmp_path / "new" / "two")
    assert (tmp_path / "new" / "two").read_bytes() == b"two"
    prefix.delete(["a/1", "a/2", "not there"])
    assert list(prefix.items("a/")) == []
    assert prefix.get("a/1") is None
    assert not prefix.download("a/1", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_listing_has_every_object_however_many_there_are(prefix: S3Prefix) -> None:
    prefix = replace(prefix, per_call=2)
    for number in range(5):
        prefix.put(f"many/{number}", b"")
    assert [item.key for item in prefix.items("many/")] == [f"many/{n}" for n in range(5)]
    prefix.delete([item.key for item in prefix.items("many/")])
    assert list(prefix.items()) == []


def test_a_condition_that_does_not_hold_changes_nothing(prefix: S3Prefix) -> None:
    etag = prefix.put("one", b"1", new=True)
    with pytest.raises(Conflict):
        prefix.put("one", b"2", new=True)
    changed = prefix.put("one", b"3", replacing=etag)
    with pytest.raises(Conflict):
        prefix.put("one", b"4", replacing=etag)
    content = prefix.get("one")
    assert content is not None
    assert (content.data, content.etag) == (b"3", changed)


def test_check_leaves_nothing_behind(prefix: S3Prefix) -> None:
    prefix.check()
    assert list(prefix.items()) == []


def test_an_address_reads_as_it_was_written() -> None:
    for uri in ("s3://bucket", "s3://bucket/a/b", "s3://bucket/a?region=eu-central-1"):
        assert S3Prefix.parse(uri).uri == uri
    assert S3Prefix.parse("s3://bucket/a/?region=x").where == "s3://bucket/a"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("scheme=ftp", "scheme must be http or https, got 'ftp'"),
        ("endpoint_override=a b", "endpoint_override must be HOST:PORT, got 'a b'"),
    ],
)
def test_a_setting_that_cannot_be_one_is_refused(settings: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        S3Prefix.parse(f"s3://bucket/p?{settings}")


def test_what_a_console_makes_of_an_empty_folder_is_no_object(prefix: S3Prefix) -> None:
    prefix.put("evidence/", b"")
    assert list(prefix.items()) == []


def refusal(prefix: S3Prefix) -> str:
    with pytest.raises(InputError) as caught:
        prefix.check()
    text = str(caught.value)
    assert text.startswith(f"{prefix.where}: --storage: ")
    assert "\n" not in text
    return text


def test_a_bucket_that_does_not_exist_is_named(prefix: S3Prefix) -> None:
    missing = S3Prefix("no-such-bucket", "p/", prefix.query)
    assert refusal(missing).endswith("the bucket does not exist")


def test_the_commands_refuse_a_bucket_in_one_line(
    prefix: S3Prefix, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = S3Prefix("no-such-bucket", "p/", prefix.query).uri
    for command in (
        lambda: run.main(["--task", "tiny", "--storage", uri]),
        lambda: run.main(["--resume", "s", "--storage", uri]),
        lambda: status.main(["s", "--storage", uri]),
    ):
        assert command() == 2
        err = capsys.readouterr().err
        assert err.startswith("error: s3://no-such-bucket/p")
        assert err.endswith("the bucket does not exist\n")
        assert err.count("\n") == 1


def test_no_credentials_are_bad_input(prefix: S3Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    other = S3Prefix(prefix.name, prefix.prefix, f"{prefix.query}&region=eu-west-1")
    assert "no AWS credentials found" in refusal(other)


@pytest.fixture
def denying() -> Iterator[S3Prefix]:
    """A server that lets nobody write."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    yield S3Prefix("studies", "p/", f"endpoint_override={address}&scheme=http&region=us-east-1")
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("prefix")
def test_no_right_to_write_is_bad_input(denying: S3Prefix) -> None:
    assert refusal(denying).endswith("access denied; the study must read and write here")


@pytest.mark.usefixtures("prefix")
def test_a_server_that_is_not_there_is_bad_input() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    gone = S3Prefix("studies", "p/", f"endpoint_override={address}&scheme=http&region=us-east-1")
    assert "the storage does not answer: Could not connect" in refusal(gone)


@pytest.mark.slow
@pytest.mark.usefixtures("prefix")
def test_a_server_that_answers_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        query = f"endpoint_override={address}&scheme=http&region=us-east-1"
        with pytest.raises(StorageUnavailable, match="the storage does not answer: Read timeout"):
            S3Prefix("studies", "p/", query, read_seconds=0.2).put("key", b"")
