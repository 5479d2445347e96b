"""Canaries: marked secrets go through the whole story at DEBUG, and through every refusal, and are in no log."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import jwt
import pytest

from relay.audit.verify import verify
from tests.support.backends import ScriptedBackend, http_answer
from tests.support.canaries import Canaries, canary, hits
from tests.support.forged_tokens import claims, signed
from tests.support.raw_http import asking_for_events, bearing, exchange, head, knock, post, upgrade
from tests.support.relay_process import PUBLISHER_SECRET, REF_KEY, SECRET, Relay, make_relay, running
from tests.support.shared_relay import assert_quiet

ROUTE = """
[bff.proxy.routes."/data"]
methods = ["GET", "POST"]
strip = ["hidden"]
"""


@pytest.fixture(scope="module")
def backend() -> ScriptedBackend:
    """A backend that hands out marked tokens."""
    return ScriptedBackend()


@pytest.fixture(scope="module")
def relay(backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay at DEBUG."""
    bff = f'backend = "{backend.origin}"\ntimeout_s = 1.0\n{ROUTE}'
    with running(tmp_path_factory.mktemp("canaries"), bff=bff) as relay:
        assert 'level = "debug"' in (relay.folder / "relay.toml").read_text()
        yield relay


async def whole_story(relay: Relay, backend: ScriptedBackend, marks: Canaries) -> None:
    """Log in, take a token, connect with it in each way, get prices, try it again, log out."""
    session = relay.session(sid=marks["session id"], marked=marks["access token"])
    refresh = relay.session(token_use="refresh", marked=marks["refresh token"])
    marks |= {"access token itself": session, "refresh token itself": refresh}
    credentials = {"email": marks["email"], "password": marks["password"]}
    good = {"accessToken": session, "refreshToken": refresh, "user": {"name": marks["user object"]}}
    json_type = ("Content-Type", "application/json")
    origin = ("Origin", relay.url)
    for answer in (http_answer(200, good), http_answer(401, {}), http_answer(500, good), b"garbage"):
        async with backend.answering(answer):
            await post(relay, "/api/auth/login", [origin, json_type], body=json.dumps(credentials).encode())
    cookie = ("Cookie", f"access-token={session}; refresh-token={refresh}; other={marks['cookie']}")
    issued = [await post(relay, "/auth/ws-token", [origin, cookie]) for _ in range(4)]
    tokens = [answer.json["wsToken"] for answer in issued]
    marks |= {f"scoped token {index}": token for index, token in enumerate(tokens)}
    await relay.publish("prices.CANARY", {"note": marks["payload"]})
    query = f"?channels=prices.CANARY&x={marks['query']}"
    async with relay.connect(tokens[0], query=query) as socket:
        await socket.read("subscribed")
        await socket.read("snapshot")
        await socket.send(type="subscribe", channels=["prices.OTHER"], extra=marks["frame"])
        await socket.send(type=marks["frame"])
    await knock(relay, f"/ws/prices?token={tokens[1]}&x={marks['query']}", [*upgrade(relay), cookie])
    for token in tokens[:2]:
        await knock(relay, fields=[*upgrade(relay), bearing(token), cookie])
    asked = [*asking_for_events(relay), cookie, ("Last-Event-ID", marks["frame"])]
    for field in (
        ("Authorization", f"Bearer {tokens[3]}"),
        ("Authorization", f"Bearer {tokens[3]}"),
        ("Relay-Subscribe", marks["frame"]),
    ):
        for query in ("", f"?last_event_id={marks['query']}&since={marks['query']}", f"?token={tokens[1]}"):
            await knock(relay, f"/ws/prices{query}", [*asked, field])
    await calls_through_the_proxy(relay, backend, marks, [origin, cookie, json_type])
    await post(relay, "/api/auth/logout", [origin, cookie])
    await knock(relay, f"/ws/prices?token={tokens[2]}")
    await post(relay, "/auth/ws-token", [origin, cookie])


async def calls_through_the_proxy(
    relay: Relay, backend: ScriptedBackend, marks: Canaries, fields: list[tuple[str, str]]
) -> None:
    """Call the backend through the proxy: good and bad answers, and paths and headers that are refused."""
    location = f"Location: http://127.0.0.1/?token={marks['access token itself']}"
    kind = "Content-Type: application/json"
    answers = [
        http_answer(200, {"data": marks["answer"], "hidden": marks["answer"]}, kind),
        http_answer(200, {"data": marks["access token itself"]}, kind),
        http_answer(302, {}, kind, location),
        http_answer(500, marks["answer"].encode()),
        f"garbage {marks['answer']}\r\n\r\n".encode(),
    ]
    for answer in answers:
        async with backend.answering(answer):
            path = f"/api/proxy/data/{marks['path']}?x={marks['query']}"
            await post(relay, path, [*fields, ("Range", marks["frame"])], body=marks["payload"].encode())
    for path in (f"/api/proxy/data//{marks['path']}", f"/api/proxy/{marks['path']}", "/api/proxy/data"):
        await post(relay, f"{path}?x={marks['query']}", [*fields, ("X_" + marks["frame"], marks["frame"])])


def starts(relay: Relay, port: int) -> list[list[tuple[str, str]]]:
    """Return the first fields of requests to a listener."""
    if port == relay.ports[1]:
        return [upgrade(relay, origin=""), asking_for_events(relay, origin="")]
    return [[("Host", "127.0.0.1")]]


async def every_refusal(relay: Relay, marks: Canaries) -> None:
    """Send the marks where they do not belong, to all three listeners, in and out of form."""
    public, stream, internal = relay.ports
    secret = signed(relay, claims(relay, sub=marks["claim"]), {marks["token header"]: marks["token header"]})
    wrong = jwt.encode({"x": marks["access token"]}, "k" * 32, algorithm="HS256", headers={"alg": "HS256"})
    sensitive = [
        ("Cookie", f"access-token={marks['cookie']}"),
        ("Authorization", f"Bearer {marks['bearer']}"),
        ("Authorization", f"Basic {marks['basic']}"),
        ("Sec-WebSocket-Protocol", f"relay.v1, bearer.{marks['subprotocol']}"),
        ("Sec-WebSocket-Key", marks["key"]),
        ("X-Api-Key", marks["key"]),
    ]
    for field in [*sensitive, ("Cookie", f"access-token={wrong}"), bearing(secret), bearing(secret[:-1])]:
        for port, method, target in (
            (public, "POST", "/auth/ws-token"),
            (public, "POST", "/api/auth/login"),
            (public, "POST", "/api/auth/logout"),
            (public, "GET", "/nowhere"),
            (internal, "POST", "/v1/publish"),
            (internal, "POST", "/v1/publish/batch"),
            (internal, "GET", "/live"),
            (stream, "GET", "/ws/prices"),
            (stream, "GET", "/nowhere"),
            (stream, "POST", "/ws/prices"),
        ):
            path = f"{target}?token={marks['query']}&password={marks['query']}"
            for start, extra in product(starts(relay, port), ([], [("Origin", relay.url)])):
                fields = [*start, *extra, field, ("Content-Length", "0")]
                await exchange(port, head(method, path, fields))
                await exchange(port, head(method, target, fields))
    # heads that can't be parsed, and that a parser may quote in what it raises
    for name, value in sensitive:
        for line in (f"{name} {value}", f"{name}\x00: {value}", f"{name}: {value}\x01", f" {name}: {value}"):
            for port in relay.ports:
                await exchange(port, f"GET /?token={marks['query']} HTTP/1.1\r\n{line}\r\n\r\n".encode())
    for first in (
        f"GET /ws/prices?token={marks['query']} x HTTP/1.1",
        f"GET {marks['query']}",
        marks["query"],
    ):
        for port in relay.ports:
            await exchange(port, f"{first}\r\n\r\n".encode())
    for body in (
        f'{{"endpoint":"{marks["body"]}"',
        f'{{"password":"{marks["password"]}","email":5}}',
        f'{{"channel":"prices.X","data":"{marks["payload"]}"',
        f'{{"messages":[{{"channel":"prices.X","data":"{marks["payload"]}",}}]}}',
        f"password={marks['password']}",
    ):
        for port, path, key in (
            (public, "/auth/ws-token", relay.session()),
            (public, "/api/auth/login", "x"),
            (internal, "/v1/publish", f"pricing.{PUBLISHER_SECRET}"),
            (internal, "/v1/publish/batch", f"pricing.{PUBLISHER_SECRET}"),
            (internal, "/v1/publish", f"pricing.{marks['publisher key']}"),
        ):
            for kind in ("application/json", "application/x-www-form-urlencoded"):
                fields = [
                    ("Host", "127.0.0.1"),
                    ("Authorization", f"Bearer {key}"),
                    ("Content-Type", kind),
                    ("Content-Length", str(len(body))),
                ]
                data = head("POST", path, fields) + body.encode()
                await exchange(port, data)
                await exchange(port, data[:-3], half_close=True)


async def test_no_secret_is_in_any_log(relay: Relay, backend: ScriptedBackend) -> None:
    """Nothing of a token, cookie, header, query, password, key, body or payload is in log, audit log or output."""
    names = (
        "session id, access token, refresh token, email, password, user object, cookie, payload, query, frame, claim, "
        "token header, bearer, basic, subprotocol, key, body, publisher key, answer, path"
    )
    marks = {name: canary(name) for name in names.split(", ")}
    await whole_story(relay, backend, marks)
    await every_refusal(relay, marks)
    marks |= {"session secret": SECRET, "ref key": REF_KEY, "publisher secret": PUBLISHER_SECRET}
    assert relay.process is not None
    assert relay.process.stdout is not None
    assert relay.process.poll() is None
    relay.process.terminate()
    output = relay.process.stdout.read()
    relay.process.wait(15)
    sinks = {"output": output, "log": relay.log_path.read_text(), "audit": relay.audit_path.read_text()}
    assert '"stopping"' in sinks["log"]
    for action in (
        "token.issued",
        "token.denied",
        "connect.accepted",
        "connect.denied",
        "login.succeeded",
        "logout",
        "proxy.denied",
    ):
        assert f'"{action}"' in sinks["audit"], action
    # whom a token without a right signature names is recorded, as a claim; nothing else of it is
    assert hits(marks, sinks) == {("claim", "audit")}
    for record in relay.audit():
        if marks["claim"] in json.dumps(record):
            assert marks["claim"] in record["relay"].pop("claimed").values()
            assert marks["claim"] not in json.dumps(record)
    assert_quiet(relay)
    with relay.audit_path.open("rb") as lines:
        assert verify(lines).ok


def test_a_crash_shows_no_secret(tmp_path: Path) -> None:
    """A relay that can't start says why, and none of its secrets."""
    relay = make_relay(tmp_path, extra='[audit]\npath = "/nonexistent/audit.jsonl"')
    done = subprocess.run(
        [sys.executable, "-m", "relay", "serve", "--config", str(relay.folder / "relay.toml")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not [mark for mark in (SECRET, REF_KEY, PUBLISHER_SECRET) if mark in done.stdout + done.stderr]
