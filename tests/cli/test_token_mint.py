"""`relay token mint`: a token for tests and support, never without a record of who made it."""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import jwt
import pytest

from relay.audit.verify import read_lines, verify
from tests.support.command_line import RelayCommand
from tests.support.relay_process import Relay, make_relay, running


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """A folder with settings and keys; the command runs there, without other settings."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return make_relay(tmp_path)


def records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log, whose chain must be whole."""
    with path.open("rb") as log:
        assert verify(read_lines(log), head=None).ok
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def claims_of(token: str) -> dict[str, Any]:
    """Return a token's claims, unchecked."""
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_a_token_for_tests(deployment: Relay, relay: RelayCommand) -> None:
    """Standard output has the token and nothing else; `relay token verify` accepts it."""
    done = relay("token", "mint", "--user", "alice")
    assert done.code == 0
    [token] = done.out.splitlines()
    claims = claims_of(token)
    assert claims["sub"] == "alice"
    assert claims["aud"] == f"{deployment.stream_url}/ws/prices"
    assert claims["channels"] == ["prices.>"]
    assert claims["origin"] == ""
    assert claims["exp"] - claims["iat"] == 30
    assert token not in done.err
    assert relay("token", "verify", "-", stdin=token.encode()).code == 0


def test_the_record_says_who_made_it(deployment: Relay, relay: RelayCommand) -> None:
    """`token.issued` in the relay's own log, with the mark of an operator, and without the token."""
    token = relay("token", "mint", "--user", "alice", "--channels", "prices.BTC-USD").out.strip()
    [record] = [r for r in records(deployment.audit_path) if r["event"]["action"] == "token.issued"]
    assert record["event"]["action"] == "token.issued"
    assert record["user"] == {"id": "alice"}
    made_by = record["relay"]["minted_by"]
    assert (made_by["uid"], made_by["host"]) == (os.getuid(), socket.gethostname())
    claims = claims_of(token)
    for name in ("jti", "aud", "scope", "channels", "iat", "exp"):
        assert record["relay"]["token"][name] == claims[name]
    assert token.rpartition(".")[2] not in deployment.audit_path.read_text()


def test_what_it_is_for(deployment: Relay, relay: RelayCommand) -> None:
    """Endpoint, channels and origin as asked."""
    done = relay(
        *("token", "mint", "--user", "bob", "--endpoint", "trades", "--origin", deployment.url, "--json"),
        *("--channels", "trades.BTC-USD", "--channels", "trades.ETH-USD"),
    )
    found = json.loads(done.out)
    claims = claims_of(found["token"])
    assert (claims["aud"], claims["origin"]) == (f"{deployment.stream_url}/ws/trades", deployment.url)
    assert claims["channels"] == ["trades.BTC-USD", "trades.ETH-USD"]
    assert (found["endpoint"], found["jti"], found["expires_at"]) == (
        claims["aud"],
        claims["jti"],
        claims["exp"],
    )
    assert found["audit"] == str(deployment.audit_path)


async def test_a_running_relay_takes_it(tmp_path: Path, relay: RelayCommand) -> None:
    """While the relay writes its log, the record goes to one of its own; the token opens one connection."""
    with running(tmp_path) as service:
        arguments = ("token", "mint", "--user", "alice", "--config", str(tmp_path / "relay.toml"))
        refused = await asyncio.to_thread(relay, *arguments)
        assert (refused.code, refused.out) == (2, "")
        assert "being written by another process" in refused.err
        assert "--audit FILE" in refused.err
        log = str(tmp_path / "by-hand.jsonl")
        token = (await asyncio.to_thread(relay, *arguments, "--audit", log)).out.strip()
        async with service.connect(token, origin=None):
            pass
        accepted = await service.audited("connect.accepted")
    [record] = records(tmp_path / "by-hand.jsonl")
    assert record["relay"]["token"]["jti"] == accepted["relay"]["token"]["jti"]
    assert accepted["user"] == {"id": "alice"}


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", "/proc/nowhere/x", "keys"])
def test_there_is_no_token_without_a_record(deployment: Relay, relay: RelayCommand, path: str) -> None:
    """A log that keeps nothing, or can't be written: exit code 2, and no token."""
    done = relay("token", "mint", "--user", "alice", "--audit", path)
    assert (done.code, done.out) == (2, "")
    assert "a token needs a record" in done.err.lower()


def test_a_full_disk_gives_no_token(
    deployment: Relay, relay: RelayCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is written before the token is shown, and if it can't be, there is none."""

    def no_space(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("relay.audit.logfile.os.write", no_space)
    done = relay("token", "mint", "--user", "alice")
    assert (done.code, done.out) == (2, "")
    assert "No space left on device" in done.err


def test_without_the_private_key(deployment: Relay, relay: RelayCommand) -> None:
    """A machine with public keys only can't make tokens, and says so."""
    [private] = (deployment.folder / "keys").glob("*.private.pem")
    private.unlink()
    done = relay("token", "mint", "--user", "alice")
    assert (done.code, done.out) == (2, "")
    assert "has no private key" in done.err
    assert not deployment.audit_path.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--endpoint", "orders"), "There is no [endpoints.orders]"),
        (("--channels", "orders.>"), "orders.> lies outside the endpoint's channels: prices.>."),
        (("--channels", ">"), "> lies outside"),
        (("--channels", "a..b"), "a..b"),
        (("--origin", "https://evil.example"), "may not open sockets"),
        (("--user", ""), "sub must be a string that is not empty.\n"),
        (("--user", "x" * 5000), "There is no token: "),
    ],
)
def test_what_the_relay_would_refuse_is_not_made(
    deployment: Relay, relay: RelayCommand, options: tuple[str, ...], sentence: str
) -> None:
    """One sentence, exit code 2, no token and no record."""
    user = () if "--user" in options else ("--user", "alice")
    done = relay("token", "mint", *user, *options)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert not deployment.audit_path.exists()
