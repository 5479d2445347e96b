"""Events and logs for the tests of the audit log."""

import asyncio
import hashlib
import json
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from relay.audit.chain import Link, unseal
from relay.audit.jsonl import JsonlAuditor
from relay.audit.verdict import Verdict
from relay.audit.verify import read_lines, verify
from relay.core.errors import MalformedError, Reason
from relay.core.events import Action, Client, Event

HOSTILE = {
    "newlines": "a\r\nb\rc\n{}",
    "ansi": "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "bidi": "user\u202etxt.exe\u2066",
    "surrogate": "\ud800 lone \udfff",
    "nul": "\x00\x7f",
    "quotes": '","relay":{"chain":{"hash":"' + "0" * 64 + '"}},"x":"\\',
    "chain": '"chain":{"prev":"' + "0" * 64 + '","seq":1,"writer":',
    "huge": "\x1b\u2028💣" * 350_000,
    "deep": '{"a":' * 100_000,
}
"""Texts that would break a line, a terminal, a parser or the disk if they came through as they are."""


def an_event(number: int = 0, *, relay: Mapping[str, Any] | None = None) -> Event:
    """Return an event that has everything an event can have; `number` tells it from others."""
    return Event(
        action=Action.CONNECT_DENIED,
        reason=Reason.TOKEN_REPLAYED,
        user=f"user-{number}",
        client=Client(address="203.0.113.9", peer="10.0.0.1", user_agent="Mozilla/5.0 (X11)"),
        status=401,
        path="/ws/prices",
        relay={"token": {"jti": f"jti-{number}", "channels": ["prices.>"]}} if relay is None else relay,
    )


class Lines(list[bytes]):
    """A log's lines, with a repr that does not bury a failing test."""

    def __repr__(self) -> str:
        return f"<{len(self)} lines>"


def write_log(path: Path, count: int) -> Lines:
    """Have a real auditor write `count` events to `path`; return the file's lines."""

    async def write() -> None:
        auditor = JsonlAuditor.open(path, node="node-1")
        for number in range(count):
            auditor.note(an_event(number))
        await auditor.aclose()

    asyncio.run(write())
    return Lines(path.read_bytes().splitlines(keepends=True))


def records(path: Path) -> list[dict[str, Any]]:
    """Return the records of the log at `path`, read as any program would read them."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def users(path: Path) -> list[str]:
    """Return the users of the log's records, in order; of a gap record, its action."""
    return [
        record["user"]["id"] if "user" in record else record["event"]["action"] for record in records(path)
    ]


def with_new_hashes(record: dict[str, Any]) -> bytes:
    """Return `record` as a line whose hash fits: what a forger does, by the documented rules alone."""
    chain = record["relay"]["chain"]
    chain.pop("hash", None)
    body = json.dumps(record, sort_keys=True, separators=(",", ":"))
    chain["hash"] = hashlib.sha256((chain["prev"] + body).encode()).hexdigest()
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def rewritten(lines: Sequence[bytes], start: int) -> list[bytes]:
    """Return `lines` with record `start` changed, and all later hashes computed again, so that the chain is valid."""
    result = list(lines[:start])
    for number, line in enumerate(lines[start:], start):
        record = json.loads(line)
        if number == start:
            record["user"] = {"id": "somebody else"}
        else:
            record["relay"]["chain"]["prev"] = json.loads(result[-1])["relay"]["chain"]["hash"]
        result.append(with_new_hashes(record))
    return result


@contextmanager
def disk_with(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a full disk: the kernel writes a part and refuses the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_disk(path: Path, *, room: int = 0) -> Iterator[None]:
    """Let the log at `path` grow by `room` bytes and no more; nothing is printed meanwhile."""
    with capture_logs(), disk_with(path.stat().st_size + room):
        yield


def checked(path: Path, head: Link | None = None) -> Verdict:
    """Verify the log at `path`."""
    with path.open("rb") as file:
        return verify(read_lines(file), head=head)


def whole(path: Path) -> bool:
    """Tell whether the log at `path` verifies."""
    return checked(path).ok


def log_bytes(path: Path) -> list[bytes]:
    """Return the bytes of the log at `path`, line by line."""
    return path.read_bytes().splitlines(keepends=True)


def intact_lines(path: Path) -> list[bytes]:
    """Return the lines of the log at `path` that are records, without those that a full disk tore."""
    lines = []
    for line in log_bytes(path):
        with suppress(MalformedError):
            if unseal(line).intact:
                lines.append(line)
    return lines


def intact_users(path: Path) -> list[str]:
    """Return the users of the intact records, in order; of a gap record, its action."""
    found = map(json.loads, intact_lines(path))
    return [record["user"]["id"] if "user" in record else record["event"]["action"] for record in found]


def gaps(path: Path) -> list[dict[str, Any]]:
    """Return what the gap records of the log at `path` say."""
    found = map(json.loads, intact_lines(path))
    return [record["relay"] for record in found if record["event"]["action"] == "audit.gap"]
