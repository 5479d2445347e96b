"""Rate limits of the issuer and of log-ins, and the issuer without its audit log."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from relay.core.errors import Reason
from relay.limits.memory import MemoryCounts
from relay.limits.requests import RateLimits, Rates
from tests.support.http_client import http_client
from tests.support.raw_http import exchange, head
from tests.support.relay_process import Relay, make_relay
from tests.support.shared_relay import assert_quiet


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with low limits."""
    relay = make_relay(tmp_path_factory.mktemp("strict"))
    settings = (relay.folder / "relay.toml").read_text()
    for setting, limit in {"tokens_per_session": "3/hour", "tokens_per_address": "12/hour"}.items():
        old = next(line for line in settings.splitlines() if line.startswith(setting))
        settings = settings.replace(old, f'{setting} = "{limit}"')
    (relay.folder / "relay.toml").write_text(
        settings + '\n[csrf]\ntrusted_origins = ["http://trusted.example"]\n'
    )
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)


def assert_limited(answer: httpx.Response) -> None:
    """Check that an answer is 429 and says how long to wait."""
    error = answer.json()
    assert (answer.status_code, error["code"], error["retryable"]) == (429, "rate_limited", True)
    assert 1 <= int(answer.headers["retry-after"]) <= 2 * 3600
    assert answer.headers["cache-control"] == "private, no-store"
    assert "set-cookie" not in answer.headers


async def test_sessions_and_addresses_have_limits_of_their_own(strict: Relay) -> None:
    """A session's fourth request is 429, other sessions get tokens, and the address's thirteenth is 429 for all."""
    session = strict.session()
    for _ in range(3):
        assert (await strict.ask(session)).status_code == 200
    assert_limited(await strict.ask(session))
    for _ in range(8):
        assert (await strict.ask(strict.session())).status_code == 200
    assert_limited(await strict.ask(strict.session()))
    assert_limited(await strict.ask("garbage"))
    async with http_client() as client:
        spoofed = {"Authorization": f"Bearer {strict.session()}", "X-Forwarded-For": "198.51.100.7"}
        assert_limited(await client.post(f"{strict.url}/auth/ws-token", headers=spoofed))
    fields = [("Host", "x"), ("Authorization", f"Bearer {strict.session()}"), ("Content-Length", "0")]
    data = head("POST", "/auth/ws-token", fields)
    assert (await exchange(strict.ports[0], data, source="127.0.0.2")).status == 200, "another address"


async def test_a_trusted_origin_may_ask_and_still_opens_no_socket(strict: Relay) -> None:
    """A page of csrf.trusted_origins may ask, but only public.allowed_origins get tokens; the error says so."""
    cookie = f"access-token={strict.session()}"
    fields = [
        ("Host", "x"),
        ("Cookie", cookie),
        ("Origin", "http://trusted.example"),
        ("Content-Length", "0"),
    ]
    answer = await exchange(strict.ports[0], head("POST", "/auth/ws-token", fields), source="127.0.0.3")
    assert (answer.status, answer.code) == (403, "forbidden")
    assert b"not in public.allowed_origins" in answer.body


def limits(**changed: str) -> RateLimits:
    """Return limits of one request an hour, except those that are given."""
    names = [field.name for field in dataclasses.fields(Rates)]
    rates = Rates(**(dict.fromkeys(names, "1/hour") | changed))
    return RateLimits(rates, counts=lambda _name, rate: MemoryCounts(rate))


async def test_a_wait_is_jittered() -> None:
    """Clients that were refused at the same moment get different times to wait."""
    counts = limits()
    assert await counts.address("192.0.2.1") is None
    waits = set()
    for _ in range(20):
        limited = await counts.address("192.0.2.1")
        assert limited is not None
        assert limited.refusal.reason is Reason.RATE_LIMITED
        assert 3500 < limited.retry_after_s < 2 * 3600 + 1
        waits.add(limited.retry_after_s)
    assert len(waits) > 10
    assert await counts.address("192.0.2.2") is None
    assert await counts.session("192.0.2.1") is None, "addresses and sessions are counted apart"


async def test_an_ipv6_network_has_one_count() -> None:
    """Addresses of one IPv6 /64 share a count; IPv4-mapped addresses count as IPv4."""
    counts = limits()
    assert await counts.address("2001:db8::1") is None
    assert await counts.address("2001:db8::ffff:2") is not None
    assert await counts.address("2001:db8:0:1::1") is None
    assert await counts.address("::ffff:192.0.2.1") is None
    assert await counts.address("::ffff:192.0.2.2") is None
    assert await counts.address("192.0.2.2") is not None


async def test_log_ins_are_counted_by_address_and_by_account() -> None:
    """Another address does not avoid the account's limit, and another name does not avoid the address's limit."""
    counts = limits(logins_per_address="2/hour", logins_per_account="3/hour")
    assert [await counts.login("192.0.2.1", name) is None for name in ("a", "b", "c")] == [True, True, False]
    assert [await counts.login(f"192.0.2.{host}", "d") is None for host in range(10, 14)] == [
        True,
        True,
        True,
        False,
    ]
    assert await counts.login("192.0.2.20", "e") is None
    assert await counts.address("192.0.2.1") is None, "log-ins and requests are counted apart"


async def test_one_address_can_not_lock_an_account() -> None:
    """Guesses from one address are refused for that address, and hardly count for the account."""
    counts = limits(
        logins_per_address="100/hour", logins_per_account="10/hour", logins_per_account_and_address="3/hour"
    )
    guesses = [await counts.login("192.0.2.1", "victim") is None for _ in range(50)]
    assert guesses == [True] * 3 + [False] * 47
    assert [await counts.login("192.0.2.2", "victim") is None for _ in range(4)] == [True] * 3 + [False]
    assert await counts.login("192.0.2.1", "another") is None
    for host in (3, 4):
        assert [await counts.login(f"192.0.2.{host}", "victim") is None for _ in range(2)] == [True, True]
    assert await counts.login("192.0.2.5", "victim") is not None, "ten from everywhere"


async def test_log_ins_are_given_back_within_the_limits() -> None:
    """A backend that always fails does not lift the limits: twice as many log-ins get through, and not any number."""
    rates = {
        "logins_per_address": "5/hour",
        "logins_per_account": "20/hour",
        "logins_per_account_and_address": "3/hour",
    }

    async def passed(counts: RateLimits, logins: list[tuple[str, str]]) -> int:
        found = 0
        for address, account in logins:
            if await counts.login(address, account) is None:
                found += 1
                await counts.give_back_login(address, account)
        return found

    one_user = [("192.0.2.1", "patient")] * 30
    assert await passed(limits(**rates), one_user) == 5 + 3
    many_users = [("192.0.2.1", f"user-{index}") for index in range(30)]
    assert await passed(limits(**rates), many_users) == 5 + 5
    many_addresses = [(f"192.0.{index}.1", "victim") for index in range(100)]
    assert await passed(limits(**rates), many_addresses) == 20 + 20


async def test_no_token_without_its_record(tmp_path: Path) -> None:
    """With the audit log on a full device every token is refused with 503 and Retry-After."""
    relay = make_relay(tmp_path, extra='[audit]\npath = "/dev/full"')
    relay.start()
    try:
        for _ in range(2):
            answer = await relay.ask()
            error = answer.json()
            assert (answer.status_code, error["code"], error["retryable"]) == (503, "unavailable", True)
            assert int(answer.headers["retry-after"]) >= 1
            assert "wsToken" not in answer.text
        assert (await relay.ask("garbage")).status_code == 401, "a refusal needs no record"
        assert (await relay.publish("prices.BTC-USD", 1)).status_code == 200, "prices go on"
    finally:
        assert relay.stop() == 0
    assert_quiet(relay)
    log = relay.log_path.read_text()
    assert log.count("the audit log can't be written") == 1, "said once, not for each"
