"""Limits against those who have no token and no password, each over real sockets: who waits, and who does not."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.backends import demo_backend
from tests.support.raw_http import Answer, bearing, exchange, fresh, head, is_unspent, knock, upgrade
from tests.support.relay_process import Relay, make_relay
from tests.support.shared_relay import assert_quiet

CONNECTIONS = 4
PASSWORD = "demo"


def assert_told_to_wait(answer: Answer, status: int, code: str) -> int:
    """Check a refusal that is over some time; return how many seconds it names."""
    assert (answer.status, answer.code, answer.json["retryable"]) == (status, code, True)
    return int(answer.all("retry-after")[0])


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with room for four connections, and with low limits for log-ins and requests."""
    folder = tmp_path_factory.mktemp("limits")
    with demo_backend(folder) as backend:
        relay = make_relay(folder, bff=f'backend = "{backend}"', limits=f"connections = {CONNECTIONS}")
        relay.environment |= {
            "RELAY_LIMITS__LOGINS_PER_ADDRESS": "6/hour",
            "RELAY_LIMITS__LOGINS_PER_ACCOUNT": "6/hour",
            "RELAY_LIMITS__LOGINS_PER_ACCOUNT_AND_ADDRESS": "3/hour",
            "RELAY_LIMITS__TOKENS_PER_ADDRESS": "12/hour",
        }
        relay.start()
        yield relay
        relay.stop()
    assert_quiet(relay)


async def send(relay: Relay, path: str, source: str, *fields: tuple[str, str], body: bytes = b"") -> Answer:
    """POST from an address of this machine, from the application's own page unless an Origin is given."""
    own = [] if any(name == "Origin" for name, _ in fields) else [("Origin", relay.url)]
    first = [("Host", "x"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return await exchange(relay.ports[0], head("POST", path, [*first, *own, *fields]) + body, source=source)


async def login(relay: Relay, name: str, source: str, *fields: tuple[str, str]) -> Answer:
    """Log in with a wrong password."""
    body = json.dumps({"email": name, "password": "a guess"}).encode()
    return await send(relay, "/api/auth/login", source, *fields, body=body)


async def test_a_full_relay_says_so_before_it_looks_at_a_token(relay: Relay) -> None:
    """503 with a Retry-After that differs; the token is not spent and good when somebody has left."""
    tokens = [await fresh(relay) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            token = await relay.token()
            await stack.enter_async_context(relay.connect(token))
        waits = set()
        for fields in ([bearing(tokens[0])], [bearing("garbage")], []) * 5:
            answer = await knock(relay, fields=[*upgrade(relay), *fields])
            waits.add(assert_told_to_wait(answer, 503, "unavailable"))
        assert len(waits) > 1, "jittered"
    await relay.audited("connect.denied", reason="relay_full")
    await relay.audited("connection.closed")
    async with asyncio.timeout(10):
        while (await knock(relay, fields=upgrade(relay))).status == 503:  # the last of the four is leaving
            pass
    assert await is_unspent(relay, tokens[0])


async def test_an_account_is_not_guessed_from_many_addresses(relay: Relay) -> None:
    """Six tries a name, however it is written and wherever they come from; another name is free."""
    for host, name in enumerate(("victim@example.com", "VICTIM@example.com", " victim@example.com ") * 2):
        assert (await login(relay, name, f"127.0.1.{host + 1}")).status == 401
    answer = await login(relay, "victim@example.com", "127.0.1.9")
    assert assert_told_to_wait(answer, 429, "rate_limited") > 60
    assert (await login(relay, "somebody@example.com", "127.0.1.9")).status == 401
    assert "victim" not in relay.audit_path.read_text().lower()


async def test_nobody_locks_somebody_else_out(relay: Relay) -> None:
    """Who types another's name and wrong passwords is stopped himself after three; the owner logs in meanwhile."""
    guesses = [(await login(relay, "owner@example.com", "127.0.7.1")).status for _ in range(5)]
    assert guesses == [401] * 3 + [429] * 2
    assert (await login(relay, "owner@example.com", "127.0.7.2")).status == 401, "asked the backend"


async def test_an_address_does_not_guess_at_many_accounts(relay: Relay) -> None:
    """Six log-ins of one address, of any accounts; its other requests are still accepted, and so is another address."""
    source = "127.0.2.1"
    for number in range(6):
        assert (await login(relay, f"user-{number}@example.com", source)).status == 401
    answer = await login(relay, "user-7@example.com", source)
    assert assert_told_to_wait(answer, 429, "rate_limited") > 60
    cookie = ("Cookie", f"access-token={relay.session()}")
    assert (await send(relay, "/auth/ws-token", source, cookie)).status == 200
    assert (await login(relay, "user-8@example.com", "127.0.2.2")).status == 401


async def test_another_site_uses_up_no_log_ins(relay: Relay) -> None:
    """A page elsewhere can make its visitors' browsers post log-ins; those are refused before they are counted."""
    source = "127.0.3.1"
    for _ in range(8):
        answer = await login(relay, "visitor@example.com", source, ("Origin", "http://evil.example"))
        assert (answer.status, answer.code) == (403, "csrf_failed")
    assert (await login(relay, "visitor@example.com", source)).status == 401


async def test_the_address_limit_comes_before_anything_is_looked_up(relay: Relay) -> None:
    """Once an address has used up its requests, what it sends is neither checked nor distinguished: all is 429."""
    source = "127.0.4.1"
    junk, cookie = ("Cookie", "access-token=junk"), ("Cookie", f"access-token={relay.session()}")
    for _ in range(12):
        assert (await send(relay, "/auth/ws-token", source, junk)).status == 401
    for path in ("/auth/ws-token", "/api/auth/ws-token", "/api/auth/login"):
        for fields in ((junk,), (cookie,), ()):
            assert_told_to_wait(await send(relay, path, source, *fields), 429, "rate_limited")


async def test_another_site_s_page_uses_up_nobody_s_limit(relay: Relay) -> None:
    """What visitors' browsers are made to send from there is refused and not counted to their address."""
    source, cookie = "127.0.4.2", ("Cookie", f"access-token={relay.session()}")
    for path in ("/auth/ws-token", "/api/auth/login") * 15:
        assert (await send(relay, path, source, ("Origin", "http://evil.example"))).status == 403
    assert (await send(relay, "/auth/ws-token", source, cookie)).status == 200


async def test_a_limited_log_out_clears_the_cookies_and_says_what_it_did_not_do(relay: Relay) -> None:
    """The session is not looked up for it; from another site nothing is cleared, as ever."""
    source, cookie = "127.0.5.1", ("Cookie", f"access-token={relay.session()}; refresh-token=r")
    for _ in range(12):
        junk = await send(relay, "/api/auth/logout", source, ("Cookie", "access-token=junk"))
        assert (junk.status, junk.code) == (200, "session_unknown")
    answer = await send(relay, "/api/auth/logout", source, cookie)
    assert_told_to_wait(answer, 429, "rate_limited")
    assert "could not be ended" in answer.json["message"]
    assert len(answer.all("set-cookie")) == 2
    answer = await send(relay, "/api/auth/logout", source, cookie, ("Origin", "http://evil.example"))
    assert (answer.status, answer.all("set-cookie")) == (403, [])


async def test_every_refusal_over_some_time_names_a_wait_of_its_own(tmp_path: Path) -> None:
    """429 and 503 of either listener: Retry-After is there, and not the same for all who were refused together."""
    relay = make_relay(tmp_path, limits="connections = 1")
    relay.environment["RELAY_LIMITS__TOKENS_PER_ADDRESS"] = "1/second"
    relay.start()
    try:
        async with relay.connect(await relay.token()):
            full = {
                assert_told_to_wait(await knock(relay, fields=upgrade(relay)), 503, "unavailable")
                for _ in range(20)
            }
            answers = [await send(relay, "/auth/ws-token", "127.0.6.1") for _ in range(20)]
            limited = {
                assert_told_to_wait(answer, 429, "rate_limited") for answer in answers if answer.status == 429
            }
    finally:
        relay.stop()
    assert len(full) > 1
    assert len(limited) > 1
    assert max(full | limited) <= 10
