"""The MLflow address of a study: its default, its check, the command that views it."""

from __future__ import annotations

import os
import shlex
import stat
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from study.core.errors import InputError
from study.core.telemetry import MLFLOW_OFF

SQLITE = "sqlite:///"
DATABASE = "mlflow.db"
SQLITE_HEADER = b"SQLite format 3\0"
KEY = "--tracking-uri"


def default_uri(storage: Path) -> str:
    """The default: an SQLite file in the storage folder."""
    return sqlite_uri(storage.absolute() / DATABASE)


def sqlite_path(uri: str) -> Path | None:
    """The database file of an ``sqlite:///`` URI, in which ``%3F`` is a ``?``; None for others."""
    if not uri.startswith(SQLITE):
        return None
    return Path(urllib.parse.unquote(uri.removeprefix(SQLITE)))


def sqlite_uri(path: str | Path) -> str:
    """Escape a path for SQLAlchemy, which reads options after a ``?`` and ``%41`` as an A."""
    quoted = str(path)
    for letter in "%?":
        quoted = quoted.replace(letter, urllib.parse.quote(letter))
    return f"{SQLITE}{quoted}"


def absolute(uri: str) -> str:
    """The same address, valid from every working directory."""
    path = sqlite_path(uri)
    return uri if path is None or not path.name else sqlite_uri(path.absolute())


def artifact_location(uri: str) -> str | None:
    """The artifact folder beside the database file; None if a server decides."""
    path = sqlite_path(uri)
    return (path.absolute().parent / "mlartifacts").as_uri() if path else None


def check_form(tracking_uri: str) -> None:
    """Raise InputError unless the address is of a known kind and without a password: the ledger
    and command lines show it."""
    if tracking_uri.startswith(("http://", "https://")):
        try:
            parts = urllib.parse.urlsplit(tracking_uri)
        except ValueError as error:
            raise InputError(f"invalid address: {error}", key=KEY) from error
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        if "@" in parts.netloc:
            raise InputError("the address contains credentials", hint=hint, key=KEY)
        if parts.query or parts.fragment:
            message = "the address of a server must end before its '?' or '#'"
            raise InputError(message, hint=f"for credentials {hint}", key=KEY)
    elif sqlite_path(tracking_uri) is None:
        kind = tracking_uri.partition("://")[0] + "://" if "://" in tracking_uri else "none"
        message = "the address must start with http://, https:// or sqlite:///, got"
        raise InputError(f"{message} {kind}", key=KEY)  # the rest may hold a password


def check(tracking_uri: str, timeout: float = 10.0) -> None:
    """Raise InputError unless runs can be written there; answers within `timeout` seconds.

    An MLflow server must answer on ``/health``; an SQLite file must be a writable database, or its
    folder must allow making it; a ruined ``mlflow.db`` will be replaced. Nothing is written here.
    """
    check_form(tracking_uri)
    path = sqlite_path(tracking_uri)
    if path is None:
        _check_server(tracking_uri, timeout)
    else:
        _check_file(tracking_uri, path)


def _check_server(uri: str, timeout: float) -> None:
    health = f"{uri.rstrip('/')}/health"
    try:
        with urllib.request.urlopen(health, timeout=timeout) as answer:
            status, body = answer.status, answer.read(64)
    except urllib.error.HTTPError as error:
        hint = "is this name among the server's --allowed-hosts?" if error.code == 403 else ""
        message = f"the MLflow server answers {health} with status {error.code}"
        raise InputError(message, hint=hint, key=KEY) from error
    except (OSError, ValueError, OverflowError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"no MLflow server answers {health}: {reason}", key=KEY) from error
    if status != 200 or body.strip() != b"OK":
        message = f"an MLflow server must answer {health} with OK, got {body!r}"
        raise InputError(message, key=KEY)


def _check_file(uri: str, path: Path) -> None:
    try:
        if not path.name or path.is_dir():
            raise InputError(f"sqlite:/// must be followed by a file's path, got {uri!r}", key=KEY)
        with suppress(FileNotFoundError, NotADirectoryError):
            mode = path.stat().st_mode  # of a circle of links it raises
            if not stat.S_ISREG(mode):
                raise InputError("the database must be a regular file", file=path, key=KEY)
        if path.exists():
            with open(path, "rb") as file:
                header = file.read(len(SQLITE_HEADER))
            if header not in (b"", SQLITE_HEADER) and path.name != DATABASE:
                raise InputError("the file is no SQLite database", file=path, key=KEY)
        target = next(place for place in (path, *path.absolute().parents) if place.exists())
    except OSError as error:
        message = f"cannot use the database file: {error.strerror}"
        raise InputError(message, file=path, key=KEY) from error
    if not (target.is_dir() or target == path):
        raise InputError("not a folder", file=target, key=KEY)
    if not os.access(target, os.W_OK):
        raise InputError("cannot write here", file=target, key=KEY)


def ui_command(tracking_uri: str) -> str:
    """The shell command that opens the MLflow UI on an SQLite file, from any folder and without
    telemetry; the address itself for a server."""
    path = sqlite_path(tracking_uri)
    if path is None:
        return tracking_uri
    off = ["env", *(f"{name}={value}" for name, value in MLFLOW_OFF.items())]
    words = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", absolute(tracking_uri)]
    return shlex.join([*off, *words, "--host", "127.0.0.1", "--port", "5000"])
