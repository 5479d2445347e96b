"""Which origin may do what: public.url, public.allowed_origins and csrf.trusted_origins, at every place that asks."""

import asyncio
import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.support.backends import demo_backend
from tests.support.raw_http import Answer, bearing, exchange, head, knock, post, upgrade
from tests.support.relay_process import Relay, running
from tests.support.reloading import reload

ALLOWED, TRUSTED, EVIL = "http://localhost:5173", "https://partner.example", "https://evil.example"
LOGIN = b'{"email":"demo@example.com","password":"demo"}'
ROUTES = '[bff.proxy.routes."/account"]\nmethods = ["GET", "POST"]'
READABLE = {
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
}
NEVER_READABLE = ("/api/auth/me", "/api/proxy/account", "/.well-known/jwks.json")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with a backend, whose origins the tests change."""
    folder = tmp_path_factory.mktemp("origins")
    with (
        demo_backend(folder) as backend,
        running(folder, bff=f'backend = "{backend}"\n{ROUTES}') as relay,
    ):
        yield relay


async def use_origins(relay: Relay, *, allowed: list[str], trusted: list[str]) -> None:
    """Let the running relay use other origins."""
    file = relay.folder / "relay.toml"
    lines = [
        line
        for line in file.read_text().split("\n")
        if not line.startswith(("allowed_", "trusted_", "[csrf]"))
    ]
    text = "\n".join(lines).replace("[public]\n", f"[public]\nallowed_origins = {json.dumps(allowed)}\n")
    file.write_text(f"{text.rstrip()}\n[csrf]\ntrusted_origins = {json.dumps(trusted)}\n")
    assert (await reload(relay))["event"] == "the settings were read again"


def cors(answer: Answer) -> dict[str, str]:
    """The CORS headers of an answer."""
    return {name: value for name, value in answer.fields if name.startswith("access-control-")}


async def what_it_may(relay: Relay, origin: str) -> dict[str, bool]:
    """Try everything as a page of `origin`; the proxy's and the refresh's answers are those of a later check."""
    fields = [("Origin", origin), ("Cookie", f"access-token={relay.session()}")]
    token = await post(relay, "/auth/ws-token", fields)
    login = await post(
        relay, "/api/auth/login", [fields[0], ("Content-Type", "application/json")], body=LOGIN
    )
    refresh = await post(relay, "/api/auth/refresh", fields)
    proxied = await post(relay, "/api/proxy/account", fields)
    sent = bearing(token.json["wsToken"] if token.status == 200 else "x")
    socket = await knock(relay, fields=[*upgrade(relay, origin=origin), sent])
    logout = await post(relay, "/api/auth/logout", fields)
    assert token.status in (200, 403)
    assert {answer.code for answer in (login, refresh, logout, proxied) if answer.status == 403} <= {
        "csrf_failed"
    }
    readable = [set(cors(answer)) for answer in (token, login, refresh, logout)]
    assert all(one == readable[0] for one in readable)
    assert all("Origin" in ",".join(answer.all("vary")) for answer in (token, login, refresh, logout))
    assert cors(proxied) == {}
    return {
        "token": token.status == 200,
        "socket": socket.status == 101,
        "log in": login.status == 200,
        "refresh": refresh.status != 403,
        "log out": logout.status != 403,
        "proxy": proxied.status != 403,
        "read": readable[0] == READABLE,
    }


async def record_of(relay: Relay, origin: str) -> dict[str, Any]:
    """Wait for the audit record that names an origin."""
    async with asyncio.timeout(20):
        while True:
            for record in relay.audit():
                if f"'{origin}'" in record["relay"].get("detail", ""):
                    return record
            await asyncio.sleep(0.01)  # the log is a file: there is nothing to await


async def test_each_origin_may_do_what_its_list_says(relay: Relay) -> None:
    """All combinations: public.url is never locked out, and one list is enough for tokens and sockets."""
    nothing = dict.fromkeys(("token", "socket", "log in", "refresh", "log out", "proxy", "read"), False)
    for allowed, trusted in product(
        ([], [ALLOWED], [relay.url, ALLOWED]), ([], [TRUSTED], [TRUSTED, ALLOWED])
    ):
        await use_origins(relay, allowed=allowed, trusted=trusted)
        for origin in (relay.url, ALLOWED, TRUSTED, EVIL, "null"):
            calls = origin == relay.url or origin in allowed or origin in trusted
            opens = origin == relay.url or origin in allowed
            wanted = nothing | dict.fromkeys(("log in", "refresh", "log out", "proxy"), calls)
            wanted |= {"token": opens, "socket": opens, "read": origin in allowed}
            assert await what_it_may(relay, origin) == wanted, (origin, allowed, trusted)


async def test_a_preflight_is_answered_to_the_applications_origins_only(relay: Relay) -> None:
    """Exactly on the routes that log in and out, refresh and give tokens; for POST and the headers that they take."""
    await use_origins(relay, allowed=[ALLOWED], trusted=[TRUSTED])

    async def preflight(
        path: str, origin: str, method: str = "POST", names: str = "content-type"
    ) -> dict[str, str]:
        fields = [("Host", "x"), ("Origin", origin), ("Access-Control-Request-Method", method)]
        fields.append(("Access-Control-Request-Headers", names))
        return cors(await exchange(relay.ports[0], head("OPTIONS", path, fields)))

    ours = (
        "/auth/ws-token",
        "/api/auth/ws-token",
        "/api/auth/login",
        "/api/auth/refresh",
        "/api/auth/logout",
    )
    for path in ours:
        found = await preflight(path, ALLOWED, names="Content-Type, X-Relay-CSRF")
        assert found["access-control-allow-origin"] == ALLOWED
        assert found["access-control-allow-credentials"] == "true"
        assert found["access-control-allow-methods"] == "POST"
        assert found["access-control-allow-headers"] == "content-type, x-relay-csrf"
        for origin in (TRUSTED, EVIL, "null", "*", f"{ALLOWED}/", ALLOWED.upper()):
            assert await preflight(path, origin) == {}, (path, origin)
        for wrong in ({"method": "DELETE"}, {"names": "authorization"}):
            assert "access-control-allow-methods" not in await preflight(path, ALLOWED, **wrong)
    for path in NEVER_READABLE:
        assert await preflight(path, ALLOWED, "GET") == {}
        fields = [("Host", "x"), ("Origin", ALLOWED), ("Cookie", f"access-token={relay.session()}")]
        assert cors(await exchange(relay.ports[0], head("GET", path, fields))) == {}


async def test_a_refusal_names_the_origin_and_the_setting(relay: Relay) -> None:
    """In the audit record and, at info, in the process's log: on every route, and at the socket."""
    await use_origins(relay, allowed=[ALLOWED], trusted=["https://other-6.example"])
    for number, (action, path) in enumerate(
        (
            ("token.denied", "/auth/ws-token"),
            ("login.failed", "/api/auth/login"),
            ("session.refresh_denied", "/api/auth/refresh"),
            ("logout", "/api/auth/logout"),
            ("proxy.denied", "/api/proxy/account"),
            ("connect.denied", "/ws/prices"),
            ("token.denied", "/auth/ws-token"),
        )
    ):
        last = number == 6
        origin = f"https://other-{number}.example"
        fields = [("Origin", origin), ("Cookie", f"access-token={relay.session()}")]
        if action == "connect.denied":
            await knock(relay, fields=[*upgrade(relay, origin=origin), bearing("x")])
        else:
            await post(relay, path, fields)
        reason = "origin_refused" if last or action == "connect.denied" else "csrf_failed"
        record = await record_of(relay, origin)
        assert (record["event"]["action"], record["event"]["reason"]) == (action, reason)
        assert record["relay"]["setting"] == "public.allowed_origins"
        lines = [
            json.loads(line) for line in relay.log_path.read_text().splitlines() if f"'{origin}'" in line
        ]
        line = next(line for line in lines if line["action"] == action and line["reason"] == reason)
        assert (line["event"], line["level"], line["setting"]) == (
            "refused",
            "info",
            "public.allowed_origins",
        )
        named = "public.allowed_origins" if reason == "origin_refused" else "csrf.trusted_origins"
        assert named in line["why"]
