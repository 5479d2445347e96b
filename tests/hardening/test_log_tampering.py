"""Log tampering: `relay audit verify` finds every change of a real relay's audit log, as listed here.

Not by the relay: it may be long gone. What no chain can show by itself, a cut end and a log written again, needs the
head that somebody kept elsewhere.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli.audit import app
from tests.support.audit_logs import rewritten, with_new_hashes
from tests.support.raw_http import bearing, knock, upgrade
from tests.support.relay_process import Relay, running

Log = list[bytes]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of their own, whose log has a bounded and known story."""
    with running(tmp_path_factory.mktemp("tampering")) as relay:
        yield relay


async def story(relay: Relay) -> Log:
    """Have tokens issued, used, used again and refused; stop the relay, and return its log's lines."""
    for _ in range(3):
        token = await relay.token()
        async with relay.connect(token, query="?channels=prices.A,depth.A") as socket:
            await socket.read("subscribed")
        assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 401
    assert relay.stop() == 0
    return relay.audit_path.read_bytes().splitlines(keepends=True)


def head_of(line: bytes) -> str:
    """Return a record's place as --head takes it."""
    chain = json.loads(line)["relay"]["chain"]
    return f"{chain['writer']}:{chain['seq']}:{chain['hash']}"


def verdict(path: Path, log: Log, head: str = "") -> int:
    """Write a log down and return the exit code of the command: 0 whole, from 10 on damaged."""
    path.write_bytes(b"".join(log))
    return CliRunner().invoke(app, ["verify", str(path), *(["--head", head] if head else [])]).exit_code


def replaced(old: bytes, new: bytes) -> Callable[[Log], Log]:
    """Return what changes a text wherever it is, to one of the same length."""
    assert len(old) == len(new)
    return lambda log: [line.replace(old, new) for line in log]


def innocent(log: Log) -> Log:
    """Change the record of a replay to another one, and compute its hash again."""
    at = next(number for number, line in enumerate(log) if b"token_replayed" in line)
    record = json.loads(log[at])
    record["user"] = {"id": "somebody else"}
    return [*log[:at], with_new_hashes(record), *log[at + 1 :]]


TAMPERINGS: dict[str, Callable[[Log], Log]] = {
    "a user renamed": replaced(b'"user-1"', b'"user-2"'),
    "a reason softened": replaced(b"token_replayed", b"token_expired_"),
    "an outcome turned": replaced(b'"failure"', b'"success"'),
    "a time moved": lambda log: [log[0].replace(b'"@timestamp":"2', b'"@timestamp":"1'), *log[1:]],
    "the first deleted": lambda log: log[1:],
    "one deleted": lambda log: [*log[:4], *log[5:]],
    "all replays deleted": lambda log: [line for line in log if b"token_replayed" not in line],
    "two swapped": lambda log: [*log[:3], log[4], log[3], *log[5:]],
    "one repeated": lambda log: [*log[:5], log[4], *log[5:]],
    "a line put in": lambda log: [*log[:5], b"{}\n", *log[5:]],
    "one changed and its hash computed again": innocent,
    "cut within a line": lambda log: [*log[:-1], log[-1][:-20]],
}
UNSEEN_WITHOUT_A_HEAD: dict[str, Callable[[Log], Log]] = {
    "the last cut off": lambda log: log[:-1],
    "the last half cut off": lambda log: log[: len(log) // 2],
    "all cut off": lambda log: [],
    "written again from the middle": lambda log: rewritten(log, len(log) // 2),
    "written again": lambda log: rewritten(log, 0),
}


async def test_whatever_is_done_to_the_log_is_found(relay: Relay, tmp_path: Path) -> None:
    """The log as it was is whole; each tampering is damage, those of the end against the head that was kept."""
    log = await story(relay)
    assert len(log) >= 15
    kept, path = head_of(log[-1]), tmp_path / "audit.jsonl"
    assert verdict(path, log) == verdict(path, log, kept) == 0
    for name, tamper in TAMPERINGS.items():
        assert tamper(log) != log, name
        assert verdict(path, tamper(log)) >= 10, name
    for name, tamper in UNSEEN_WITHOUT_A_HEAD.items():
        assert verdict(path, tamper(log)) == 0, f"{name}: the chain by itself can't tell"
        assert verdict(path, tamper(log), kept) >= 10, name


async def test_the_log_is_checked_with_what_the_relay_keeps(tmp_path: Path) -> None:
    """Without a file the settings say where log, key and head are: against those no cut and no forgery passes."""
    with running(tmp_path) as relay:
        log = await story(relay)
        told = ["verify", "--config", str(relay.folder / "relay.toml")]
        for name, tampered in {
            "as it was": log,
            "the last cut off": log[:-1],
            "all cut off": [],
            "written again": rewritten(log, 0),
        }.items():
            relay.audit_path.write_bytes(b"".join(tampered))
            result = CliRunner().invoke(app, told)
            assert (result.exit_code == 0) == (tampered is log), (name, result.output)
        relay.audit_path.write_bytes(b"".join(log))
        assert "and that is its end, as the given head proves" in CliRunner().invoke(app, told).stdout
