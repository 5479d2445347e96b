"""Each route of the internal listener, and everybody who must not call it: refused, and in the audit log."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route, WebSocketRoute

from relay.core.errors import ConfigurationError
from relay.server.internal import internal_app
from relay.server.parts import make_parts
from relay.settings.load import load
from tests.support.operators import OPERATORS, OPS, READER, REVOKER, SECRET, operate
from tests.support.raw_http import Answer, exchange, head
from tests.support.relay_process import PUBLISHER_KEY, PUBLISHER_SECRET, Relay, make_relay, running
from tests.support.shared_relay import assert_quiet

OPEN = {"/live", "/ready", "/openapi.json"}
PAGE = {"/ops", "/ops/{name}"}
"""The ops page's files, which have no data in them."""
PUBLISHING = {"/v1/publish", "/v1/publish/batch", "/v1/ingest", "/v1/subscribers"}
NEEDED = {
    "/metrics": "read",
    "/v1/audit": "read",
    "/v1/audit/why": "read",
    "/v1/audit/questions/{question}": "read",
    "/v1/channels": "read",
    "/v1/publishers": "read",
    "/v1/channels/reset": "reset",
    "/v1/channels/{channel:path}": "reset",
    "/v1/channels/{channel:path}/value": "read",
    "/v1/values": "read",
    "/v1/connections": "read",
    "/v1/revocations": "revoke",
    "/v1/nodes": "read",
    "/v1/stats": "read",
}
"""What each route for operators needs. A route that is not in one of these three fails the walk."""
SHARED = {"/v1/channels/{channel:path}/value", "/v1/values"}
"""Of these, the routes that publishers may call too, for their own channels."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators."""
    with running(tmp_path_factory.mktemp("guarded"), extra=OPERATORS) as relay:
        yield relay
        assert_quiet(relay)


async def routes(folder: Path) -> list[tuple[str, str]]:
    """Return method and path of every route that the internal listener has, as the code has them."""
    make_relay(folder, extra=OPERATORS)
    async with make_parts(load(folder / "relay.toml")) as parts:
        found = internal_app(parts).routes
    # the publishers' socket has a route beside it for who asks without an upgrade; tests/ingest has its own callers
    found = [route for route in found if not isinstance(route, WebSocketRoute)]
    assert all(isinstance(route, Route) for route in found), "a mount would hide routes from this walk"
    walked = [
        (method, route.path) for route in found if isinstance(route, Route) for method in route.methods or ()
    ]
    assert len(walked) >= 8
    return [
        (method, path) for method, path in walked if method != "HEAD"
    ]  # Starlette's own, by the same handler


def wrong_callers(path: str) -> dict[str, list[tuple[str, str]]]:
    """Return the headers of everybody who must not get through on a route."""

    def bearer(key: str) -> list[tuple[str, str]]:
        return [("Authorization", f"Bearer {key}")]

    right = READER if NEEDED.get(path) == "read" else REVOKER
    callers = {
        "nobody": [],
        "nothing": [("Authorization", "")],
        "an empty key": [("Authorization", "Bearer ")],
        "a name alone": bearer("ops"),
        "a name and a dot": bearer("ops."),
        "a wrong secret": bearer("ops.wrong"),
        "another's secret": bearer(f"ops.{SECRET}-of-the-reader"),
        "an unknown name": bearer(f"admin.{SECRET}"),
        "the hash": bearer(f"ops.{'0' * 64}"),
        "the secret alone": bearer(SECRET),
        "a longer secret": bearer(f"{OPS}x"),
        "a huge key": bearer("ops." + "x" * 4000),
        "basic": [("Authorization", "Basic " + base64.b64encode(OPS.replace(".", ":").encode()).decode())],
        "no scheme": [("Authorization", OPS)],
        "two keys": bearer("ops.wrong") + bearer(OPS),
        "a cookie": [("Cookie", f"access-token={OPS}")],
    }
    if path in PUBLISHING:
        return callers | {"an operator": bearer(OPS), "a publisher's name": bearer(f"ops.{PUBLISHER_SECRET}")}
    other = REVOKER if right == READER else READER
    publisher = {} if path in SHARED else {"a publisher": bearer(PUBLISHER_KEY)}
    return callers | publisher | {"an operator who may not": bearer(other)}


def method_of(path: str) -> str:
    """Return the method of an operators' route."""
    if NEEDED[path] == "read":
        return "GET"
    return "DELETE" if path.endswith("path}") else "POST"


def concrete(path: str) -> str:
    """Return a path that the route matches."""
    return path.replace("{channel:path}", "prices.X").replace("{question}", "refusals")


async def call(relay: Relay, method: str, path: str, fields: list[tuple[str, str]]) -> Answer:
    """Call the internal listener with exactly these headers and a body that would be right."""
    body = b'{"channel":"prices.X","data":1}' if path in PUBLISHING else b'{"sub":"nobody"}'
    length = [("Content-Length", str(len(body))), ("Content-Type", "application/json")]
    fields = [("Host", "127.0.0.1"), *fields, *(length if method == "POST" else [])]
    return await exchange(relay.ports[2], head(method, path, fields) + (body if method == "POST" else b""))


async def test_every_route_refuses_every_wrong_caller(guarded: Relay, tmp_path: Path) -> None:
    """401 or 403, one body for all who have no key of the kind, and nothing happens."""
    for method, path in await routes(tmp_path):
        if path in OPEN:
            assert (await call(guarded, method, path, [])).status == 200
            continue
        if path in PAGE:
            continue
        assert path in NEEDED or path in PUBLISHING, f"{path} is new: say here who may call it"
        bodies = set()
        for who, fields in wrong_callers(path).items():
            answer = await call(guarded, method, concrete(path), fields)
            expected = 403 if who == "an operator who may not" else 401
            bodies.add((answer.status, answer.body))
            assert answer.status == expected, (method, path, who)
        assert len(bodies) <= 2, path


async def test_refusals_are_audited(guarded: Relay) -> None:
    """With the route, the reason, and the operator's name where the key was right; never with the key."""
    await call(guarded, "GET", "/v1/connections", [])
    record = await guarded.audited("operator.action", reason="operator_unknown")
    assert (record["event"]["outcome"], record["http"]["response"]["status_code"]) == ("failure", 401)
    await operate(guarded, "POST", "/v1/revocations", key=READER, body={"sub": "x"})
    record = await guarded.recorded(
        lambda one: (
            (one["event"].get("reason"), one.get("url", {}).get("path"))
            == ("operator_forbidden", "/v1/revocations")
        ),
    )
    assert record["relay"]["operator"]["id"] == "reader"
    assert SECRET not in guarded.audit_path.read_text()


async def test_the_right_key_opens_its_route(guarded: Relay) -> None:
    """What `may` names, and it is recorded who asked for what."""
    for path, need in NEEDED.items():
        method, key = method_of(path), {"read": READER, "revoke": REVOKER, "reset": OPS}[need]
        body = {"channel": "prices.X"} if need == "reset" else {"sub": "x"}
        asked = {"/v1/audit/why": f"{path}?about=x", "/v1/values": f"{path}?channel=>"}.get(
            path, concrete(path)
        )
        assert (await operate(guarded, method, asked, key=key, body=body)).status_code == 200
    for path in NEEDED:
        record = await guarded.recorded(
            lambda one, path=path: (
                one["event"]["action"] in ("operator.action", "audit.read")  # type: ignore[misc]  # the default
                and (one["event"]["outcome"], one["url"]["path"]) == ("success", concrete(path))
            ),
        )
        assert record["relay"]["operator"]["id"] in ("reader", "revoker", "ops")


async def test_connections_are_listed_in_pages(guarded: Relay) -> None:
    """Whose, where, how old, by which session and token; each exactly once, oldest first, over pages of two."""
    users = [f"user-{number}" for number in range(5)]
    tokens = [await guarded.token(guarded.session(sub=user)) for user in users]
    async with (
        guarded.connect(tokens[0]),
        guarded.connect(tokens[1]),
        guarded.connect(tokens[2]) as socket,
        guarded.connect(tokens[3]),
        guarded.connect(tokens[4]),
    ):
        rows: list[dict[str, Any]] = []
        after = ""
        while True:
            answer = (await operate(guarded, "GET", f"/v1/connections?limit=2{after}")).json()
            rows += answer["connections"]
            assert answer["total"] >= 5
            if answer["next"] is None:
                break
            after = f"&after={answer['next']}"
        assert [row["user"] for row in rows if row["user"] in users] == users
        row = next(row for row in rows if row["id"] == socket.welcome["connection"])
    assert (row["user"], row["endpoint"], row["address"]) == ("user-2", "prices", "127.0.0.1")
    assert row["age_s"] >= 0
    record = await guarded.recorded(
        lambda one: (
            one["event"]["action"] == "connect.accepted" and one["relay"]["connection"]["id"] == row["id"]
        ),
    )
    assert row["session"] == record["relay"]["session"]["ref"]
    assert row["token"] == record["relay"]["token"]["jti"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=99999",
        "limit=%D9%A1",
        "after=",
        "after=x",
        "after=1.0~x",
        "after=1.5~00000000-0000-0000-0000-00000000000g",
        "after=1.5~------------------------------------",
        "user=1",
    ],
)
async def test_a_page_that_is_none(guarded: Relay, query: str) -> None:
    """One sentence says what the parameter is."""
    answer = await operate(guarded, "GET", f"/v1/connections?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_without_operators_nobody_gets_in(relay: Relay) -> None:
    """Settings that name none open these routes to none."""
    for path in NEEDED:
        method = method_of(path)
        assert (await operate(relay, method, concrete(path), key=OPS, body={"sub": "x"})).status_code == 401


def test_a_publisher_s_key_can_not_be_an_operator_s(tmp_path: Path) -> None:
    """One key for two purposes is refused at the start."""
    text = OPERATORS.replace("[operators.ops]", "[operators.pricing]")
    relay = make_relay(tmp_path, extra=text)
    digest = text.split('"')[1]
    path = relay.folder / "relay.toml"
    whole = path.read_text()
    publisher = whole.partition("[publishers.pricing]")[2].split('"')[1]
    path.write_text(whole.replace(digest, publisher))
    with pytest.raises(
        ConfigurationError, match=r"operators\.pricing\.secret_sha256: a publisher has this key"
    ):
        load(path)
