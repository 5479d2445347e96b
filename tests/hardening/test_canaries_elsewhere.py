"""The same marks where the first story does not come: other verifiers, TLS, operators, batches, and the commands."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.authjs_sessions import SECRET as AUTHJS_SECRET
from tests.support.authjs_sessions import encrypted
from tests.support.backends import Backend, running_backend
from tests.support.canaries import Canaries, canary, hits
from tests.support.certificates import Authority
from tests.support.command_line import RelayCommand
from tests.support.command_line import relay as command
from tests.support.forged_tokens import claims, signed
from tests.support.http_client import http_client
from tests.support.operators import OPERATORS, OPS, operate
from tests.support.operators import SECRET as OPERATOR_SECRET
from tests.support.raw_http import bearing, exchange, head, knock, post, upgrade
from tests.support.relay_process import (
    PUBLISHER_KEY,
    PUBLISHER_SECRET,
    REF_KEY,
    SECRET,
    Relay,
    make_relay,
    with_session,
)
from tests.support.shared_relay import assert_quiet
from tests.support.tls_clients import price, visit
from tests.support.tls_relay import authority, ca, secure

__all__ = ["authority", "ca", "command", "secure"]

COOKIE = "authjs.session-token"


def sinks_of(relay: Relay) -> dict[str, str]:
    """Stop a relay and return all that it ever said."""
    assert relay.process is not None
    assert relay.process.stdout is not None
    assert relay.process.poll() is None
    relay.process.terminate()
    output = relay.process.stdout.read()
    relay.stop()
    assert_quiet(relay)
    return {"output": output, "log": relay.log_path.read_text(), "audit": relay.audit_path.read_text()}


def marked(*names: str) -> Canaries:
    """Return a mark for each name, and the secrets of the settings."""
    own = {
        "session secret": SECRET,
        "ref key": REF_KEY,
        "publisher secret": PUBLISHER_SECRET,
        "operator secret": OPERATOR_SECRET,
        "authjs secret": AUTHJS_SECRET,
    }
    return {name: canary(name) for name in names} | own


def text_of(path: str) -> str:
    """Return what is in a file."""
    return Path(path).read_text()


# --- verifiers, in which somebody else is asked or something is decrypted


async def sessions_of_each_kind(relay: Relay, backend: Backend, marks: Canaries) -> None:
    """Encrypted cookies, whole, in parts and broken; opaque tokens that the backend knows, refuses, or chokes on."""
    now = int(time.time())
    payload = {"sub": "user-7", "roles": ["trader"], "iat": now, "exp": now + 60}
    good = encrypted(payload | {"sid": marks["session id"], "name": marks["name"]}, salt=COOKIE)
    bad = encrypted(payload | {"sub": [marks["name"]]}, salt=COOKIE)
    stale = encrypted(payload | {"exp": now - 60, "email": marks["name"]}, version=4)
    marks |= {"encrypted session": good, "bad session": bad, "stale session": stale}
    half = len(good) // 2
    for cookie in (
        f"{COOKIE}={good}",
        f"{COOKIE}.0={good[:half]}; {COOKIE}.1={good[half:]}",
        f"{COOKIE}.0={good[:half]}; {COOKIE}.3={good[half:]}",
        f"{COOKIE}={good}; {COOKIE}={bad}",
        *(f"{COOKIE}={text}" for text in (bad, stale, good[:-6], marks["opaque"])),
        f"access-token={marks['opaque']}",
    ):
        await post(relay, "/auth/ws-token", [("Origin", relay.url), ("Cookie", cookie)])
    me = {"sub": "user-8", "roles": ["trader"], "sid": marks["session id"], "secret": marks["answer"]}
    for status, body in (
        (200, me),
        (200, me | {"roles": [marks["answer"], 5]}),
        (200, f'{{"sub":"{marks["answer"]}"'.encode()),
        (401, {"why": marks["answer"]}),
        (403, me),
        (500, {"trace": marks["answer"]}),
        (302, b""),
    ):
        backend.answers(body, status=status, headers={"Location": f"/elsewhere?{marks['answer']}"})
        for credential in (marks["opaque"], f"{marks['opaque']}\xe9"):
            await post(relay, "/auth/ws-token", [("Authorization", f"Bearer {credential}")])
    backend.hold()
    await post(relay, "/auth/ws-token", [("Authorization", f"Bearer {marks['opaque']}")])
    backend.release()


async def test_verifiers_that_decrypt_and_that_ask(tmp_path: Path) -> None:
    """No log has a part of a session or of a backend's answer, with every verifier and after every failure."""
    marks = marked("session id", "name", "opaque", "answer")
    async with running_backend() as backend:
        relay = with_session(
            make_relay(tmp_path),
            'verifier = ["authjs", "upstream"]',
            f'authjs = {{ secrets = ["{AUTHJS_SECRET}"] }}',
            f'upstream = {{ me = "{backend.url}", timeout_s = 0.3, cache_s = 0 }}',
        )
        relay.start()
        await sessions_of_each_kind(relay, backend, marks)
        sinks = sinks_of(relay)
    assert backend.calls
    assert sinks["audit"].count('"token.issued"') == 3
    for reason in ("session_invalid", "session_expired", "session_repeated", "backend_unavailable"):
        assert f'"{reason}"' in sinks["audit"], reason
    assert hits(marks, sinks) == set()


# --- a connection's later tokens, operators, batches


async def tokens_on_a_connection(relay: Relay, marks: Canaries) -> None:
    """First frames and refreshes, good, used, forged and no tokens at all."""
    session = relay.session(sid=marks["session id"])
    tokens = [await relay.token(session) for _ in range(3)]
    forged = signed(relay, claims(relay, sub=marks["name"], aud="wss://elsewhere.example/ws"))
    marks |= {"session": session, "forged": forged} | {f"token {n}": text for n, text in enumerate(tokens)}
    for text in (tokens[0], tokens[0], forged, marks["garbage"], f"{tokens[1]}="):
        async with connect(f"{relay.stream_url}/ws/prices", origin=relay.url, proxy=None) as websocket:  # type: ignore[arg-type]  # a NewType of str
            with contextlib.suppress(ConnectionClosed):
                await websocket.send(json.dumps({"type": "auth", "token": text}))
                await websocket.recv()
    async with relay.connect(tokens[1], query="?channels=prices.A") as socket_:
        for text in (tokens[2], tokens[2], forged, marks["garbage"]):
            await socket_.send(type="refresh", id=1, token=text)
            while (await socket_.next())["type"] not in ("refreshed", "error"):
                pass
        await socket_.send(
            type="subscribe", channels=["prices.A", marks["garbage"] * 2], since={"prices.A": 5}
        )
        await socket_.closed()
    await knock(relay, f"/ws/prices?token={forged}&token={marks['garbage']}", upgrade(relay))
    await knock(relay, f"/ws/prices?channels={marks['garbage']}", [*upgrade(relay), bearing(forged)])


async def operators_and_publishers(relay: Relay, marks: Canaries) -> None:
    """Keys right and wrong, on every route that takes one; session ids to revoke; batches with bad lines."""
    for key in (OPS, f"ops.{marks['operator key']}", marks["operator key"]):
        for method, path, body in (
            ("GET", "/v1/connections", None),
            ("GET", f"/v1/connections?after={marks['garbage']}", None),
            ("POST", "/v1/revocations", {"sid": marks["session id"]}),
            ("POST", "/v1/revocations", {"sid": [marks["session id"]]}),
            ("POST", "/v1/revocations", {marks["garbage"]: 1}),
        ):
            await operate(relay, method, path, key=key, body=body)
    lines = [
        json.dumps({"channel": "prices.A", "data": marks["payload"]}),
        json.dumps({"channel": "nowhere.A", "data": marks["payload"]}),
        f'{{"channel":"prices.A","data":"{marks["payload"]}"',
        f'{{"channel":"prices.A","data":1,"source_ts":"{marks["payload"]}"}}',
    ]
    for key in (PUBLISHER_KEY, f"pricing.{marks['publisher key']}", OPS):
        for kind in ("application/x-ndjson", "application/json", f"text/{marks['garbage']}"):
            batch = "\n".join(lines) if kind.endswith("ndjson") else f'{{"messages":[{",".join(lines)}]}}'
            await relay.publish_raw(
                batch.encode(), key=key, path="/v1/publish/batch", **{"Content-Type": kind}
            )


async def test_later_tokens_operators_and_batches(tmp_path: Path) -> None:
    """On connections that stand, and on the internal listener, nothing is quoted either."""
    marks = marked("session id", "name", "garbage", "payload", "operator key", "publisher key")
    relay = make_relay(tmp_path, extra=OPERATORS)
    relay.start()
    await tokens_on_a_connection(relay, marks)
    await operators_and_publishers(relay, marks)
    async with http_client() as client:
        for path in ("/.well-known/jwks.json", "/client/relay-client.js", f"/live?{marks['garbage']}"):
            await client.get(relay.url + path)
    sinks = sinks_of(relay)
    for action in ("connection.refreshed", "session.revoked", "operator.action", "publish.denied"):
        assert f'"{action}"' in sinks["audit"], action
    # whose token it was is what the record is for, where the signature held
    assert {hit for hit in hits(marks, sinks) if hit[0] != "name"} == set()


# --- TLS


async def test_no_secret_of_tls_or_its_traffic_is_logged(
    secure: Relay, authority: Authority, ca: ssl.SSLContext
) -> None:
    """Neither the certificate's key nor what comes over TLS; nor what comes in the clear where TLS is spoken."""
    marks = marked("garbage")
    secure.start()
    url, internal = (f"https://127.0.0.1:{secure.ports[place]}" for place in (0, 2))
    async with visit(secure, url, ca, query=True) as (socket_, token):
        await price(secure, internal, socket_, ca, "64123.41")
    marks["token"] = token
    for port in secure.ports:
        for first in (f"GET /ws/prices?token={token} HTTP/1.1", marks["garbage"]):
            await exchange(port, f"{first}\r\nHost: x\r\nCookie: {marks['garbage']}\r\n\r\n".encode())
        with socket.create_connection(("127.0.0.1", port)) as raw, contextlib.suppress(OSError, ssl.SSLError):
            ca.wrap_socket(raw, server_hostname=f"{marks['garbage'].lower()}.example").close()
        fields = [("Host", "x"), ("Cookie", f"access-token={marks['garbage']}"), ("Content-Length", "0")]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ca)
        writer.write(head("POST", f"/auth/ws-token?{marks['garbage']}", [*fields, bearing(token)]))
        await reader.read(100)
        writer.close()
    files = json.loads(secure.environment["RELAY_LISTEN__TLS"])
    marks["private key"] = text_of(files["key"]).split("\n")[1]
    assert hits(marks, sinks_of(secure)) == set()


# --- the commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment in which the commands run."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    make_relay(tmp_path, extra=OPERATORS)
    return tmp_path


def test_commands_print_no_secret_of_the_settings(
    folder: Path, command: RelayCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they print has no secret of the settings and no token but the one that was asked for, on standard output."""
    marks = marked("short secret", "key from outside", "session")
    [minted] = command("token", "mint", "--user", "alice").out.split()
    text = "".join(path.read_text() for path in (folder / "keys").glob("*.private.pem"))
    marks |= {"token": minted, "signature": minted.rpartition(".")[2], "signing key": text.split("\n")[1]}
    said = {}
    for arguments in (
        ("config", "show"),
        ("config", "check"),
        ("doctor", "--offline"),
        ("doctor", "--offline", "--json"),
        ("keys", "list"),
        ("keys", "rotate"),
        ("token", "verify", minted),
        ("token", "verify", f"{minted}="),
        ("token", "verify", "--json", f"{minted[:-4]}AAAA"),
        ("token", "inspect", minted),
        ("audit", "verify", "audit.jsonl"),
    ):
        done = command(*arguments)
        said[" ".join(arguments[:3])] = done.out + done.err
    monkeypatch.setenv("RELAY_PUBLISH_KEY", f"pricing.{marks['key from outside']}")
    done = command("publish", "--url", "http://127.0.0.1:9", "prices.A", "1")
    said["publish"] = done.out + done.err
    settings = folder / "relay.toml"
    good = settings.read_text()
    for old in (SECRET, REF_KEY):
        settings.write_text(good.replace(old, marks["short secret"][:20]))
        done = command("config", "check")
        assert done.code == 2, old
        said[f"short {old[:8]}"] = done.out + done.err
    marks["short secret"] = marks["short secret"][:20]
    assert all(said.values())
    assert hits(marks, said) == set()
