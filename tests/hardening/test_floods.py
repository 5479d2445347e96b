"""Floods of refusals: the audit log stays small, says how many there were, and loses nothing that matters."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit_logs import whole
from tests.support.raw_http import bearing, fresh, head, knock, pour, upgrade
from tests.support.relay_process import Relay, make_relay
from tests.support.shared_relay import assert_quiet

BUDGET = 5
FLOOD = 300
EACH = 200
FLOODER, NEIGHBOUR, THIEF = "127.0.0.8", "127.0.0.9", "127.0.0.10"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay that records five denials of a user or address and five subscriptions of a session singly."""
    relay = make_relay(tmp_path)
    relay.environment["RELAY_LIMITS__DENIALS_RECORDED"] = str(BUDGET)
    relay.environment["RELAY_LIMITS__SUBSCRIPTIONS_RECORDED"] = str(BUDGET)
    relay.start()
    yield relay
    relay.stop()
    assert_quiet(relay)


def of(address: str, record: dict[str, Any]) -> bool:
    """Tell whether a record is about this address."""
    return record.get("client") == {"ip": address}


def count_of(relay: Relay, address: str, reason: str) -> int:
    """Return how many records there are of this address and reason."""
    return sum(of(address, r) and r["event"].get("reason") == reason for r in relay.audit())


async def test_a_flood_is_counted_in_one_record(relay: Relay) -> None:
    """Forged requests to issuer and gate: five records, and one that says how many more there were, of what."""
    forged = head(
        "POST", "/auth/ws-token", [("Host", "x"), ("Origin", "http://evil"), ("Content-Length", "0")]
    )
    bad_origin = head("GET", "/ws/prices", upgrade(relay, origin="http://evil"))
    assert await pour(relay.ports[0], forged, FLOOD, source=FLOODER) == {403: FLOOD}
    assert await pour(relay.ports[1], bad_origin, FLOOD, source=FLOODER) == {403: FLOOD}
    await knock(relay, fields=upgrade(relay, origin="http://evil"), source=NEIGHBOUR)
    await relay.recorded(partial(of, NEIGHBOUR))
    assert relay.stop() == 0
    assert count_of(relay, FLOODER, "csrf_failed") == BUDGET
    assert count_of(relay, FLOODER, "origin_refused") == 0, "the address's budget was used up by then"
    (told,) = [r["relay"] for r in relay.audit() if r["event"]["action"] == "denials.aggregated"]
    assert told["denied"] == {
        "token.denied": {"csrf_failed": FLOOD - BUDGET},
        "connect.denied": {"origin_refused": FLOOD},
    }
    assert told["addresses"] == {FLOODER: 2 * FLOOD - BUDGET}
    assert told["anomalies"] == ["denial_burst"]
    assert whole(relay.audit_path)


async def test_a_flood_of_tokens_from_everywhere_keeps_nobody_out(relay: Relay) -> None:
    """The counts are right to the last one, the log stays small, good clients get in. Ran with 50,000 too."""
    sources = [f"127.0.1.{number}" for number in range(1, 21)]
    bad = head("GET", "/ws/prices", [*upgrade(relay), bearing("eyJhbGciOiJFZERTQSJ9.e30.AAAA")])
    flood = [asyncio.create_task(pour(relay.ports[1], bad, EACH, source=source)) for source in sources]
    came_in = 0
    while not all(task.done() for task in flood):
        async with relay.connect(await relay.token(), query="?channels=prices.A") as socket:
            await socket.read("subscribed")
            came_in += 1
    assert sum(await asyncio.gather(*flood), Counter()) == {401: EACH * len(sources)}
    assert came_in > 0
    assert relay.stop() == 0
    records = relay.audit()
    single = [r for r in records if r["event"]["action"] == "connect.denied"]
    counted = sum(r["relay"]["count"] for r in records if r["event"]["action"] == "denials.aggregated")
    assert len(single) + counted == EACH * len(sources)
    minutes = 1 + sum(r["event"]["action"] == "denials.aggregated" for r in records)
    assert len(single) <= BUDGET * len(sources) * minutes
    assert whole(relay.audit_path)


async def test_a_flood_hides_no_theft(relay: Relay) -> None:
    """Each misused token has a record in the middle of a flood from its address. Its repetitions are counted."""
    garbage = head("GET", "/nowhere", upgrade(relay))
    await pour(relay.ports[1], garbage, FLOOD, source=THIEF)
    stolen, misplaced = await fresh(relay), await fresh(relay)
    assert (await knock(relay, fields=[*upgrade(relay), bearing(stolen)])).status == 101
    replay = head("GET", "/ws/prices", [*upgrade(relay), bearing(stolen)])
    wrong = head("GET", "/ws/depth", [*upgrade(relay), bearing(misplaced)])
    tries = 4 * BUDGET
    assert await pour(relay.ports[1], replay, tries, source=THIEF) == {401: tries}
    assert await pour(relay.ports[1], wrong, tries, source=THIEF) == {403: tries}
    assert relay.stop() == 0
    assert count_of(relay, THIEF, "path_unknown") == BUDGET
    assert count_of(relay, THIEF, "token_replayed") == count_of(relay, THIEF, "token_audience") == 1
    counted: Counter[str] = Counter()
    for record in relay.audit():
        if record["event"]["action"] == "denials.aggregated":
            counted.update(record["relay"]["denied"]["connect.denied"])
    assert counted["token_replayed"] == counted["token_audience"] == tries - 1
    assert whole(relay.audit_path)


async def test_a_frame_of_refused_channels_is_one_record(relay: Relay) -> None:
    """200 channels outside the scope in one frame: one record that counts them; a user's budget bounds the frames."""
    names = [f"orders.{number}" for number in range(200)]
    session = relay.session(sub="greedy")
    async with relay.connect(await relay.token(session)) as socket:
        await socket.read("error")  # nothing subscribed yet
        for number in range(2 * BUDGET):
            await socket.send(type="subscribe", id=number, channels=names)
            assert len((await socket.read("subscribed"))["rejected"]) == 200
    assert relay.stop() == 0
    denied = [r for r in relay.audit() if r["event"]["action"] == "subscribe.denied"]
    assert [r["relay"]["count"] for r in denied] == [200] * BUDGET
    (told,) = [r["relay"] for r in relay.audit() if r["event"]["action"] == "denials.aggregated"]
    assert told["denied"] == {"subscribe.denied": {"channel_forbidden": BUDGET}}
    assert told["users"] == {"greedy": BUDGET}


async def test_a_flood_of_subscriptions_is_one_record(relay: Relay) -> None:
    """The same 200 channels again are no event. Leaving and coming back is counted beyond the session's budget."""
    names = [f"prices.{number}" for number in range(200)]
    session = relay.session(sub="restless")
    async with relay.connect(await relay.token(session), query="?channels=prices.A") as socket:
        await socket.read("subscribed")
        for _ in range(5):
            await socket.send(type="subscribe", channels=names)
            assert len((await socket.read("subscribed"))["channels"]) == 200
        for _ in range(6):
            await socket.send(type="unsubscribe", channels=names[:1])
            await socket.send(type="subscribe", channels=names[:1])
            await socket.read("unsubscribed")
            await socket.read("subscribed")
    assert relay.stop() == 0
    accepted = [r["relay"]["count"] for r in relay.audit() if r["event"]["action"] == "subscribe.accepted"]
    assert accepted == [200, 1, 1, 1, 1]
    (told,) = [r["relay"] for r in relay.audit() if r["event"]["action"] == "subscriptions.aggregated"]
    assert told["count"] == 2
    assert list(told["sessions"].values()) == [2]
