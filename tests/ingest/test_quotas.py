"""Quotas over HTTP and as credit, one team a channel, who is told what of publishers and subscribers."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import ConfigurationError
from relay.limits.quotas import Quota, QuotaTerms
from relay.settings.load import load
from tests.support.operators import OPERATORS, READER, operate
from tests.support.publisher_socket import publishing
from tests.support.relay_process import PUBLISHER_KEY, Relay, make_relay, running


def publisher(name: str, **settings: object) -> str:
    """Return the section of a publisher whose secret is its name."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    digest = hashlib.sha256(name.encode()).hexdigest()
    return "\n".join([f"[publishers.{name}]", f'secret_sha256 = ["{digest}"]', *lines, ""])


TEAMS = (
    publisher("slow", channels=["prices.slow.>"], rate="3/minute")
    + publisher("heavy", channels=["prices.heavy.>"], byte_rate="100/minute")
    + publisher("paced", channels=["prices.paced.>"], rate="200/second")
)


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with publishers of small quotas."""
    with running(tmp_path_factory.mktemp("teams"), extra=OPERATORS + TEAMS) as relay:
        yield relay


async def test_a_quota_of_messages(teams: Relay) -> None:
    """What is within it passes, one more is 429 with a time to come back and a sentence; nobody else notices."""
    body = b'{"channel":"prices.slow.A","data":1}'
    answers = [await teams.publish_raw(body, key="slow.slow") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].json() == {
        "code": "rate_limited",
        "message": "The quota of slow is 3/minute.",
        "retryable": True,
    }
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
    assert (await teams.publish("prices.B", 1)).status_code == 200
    record = await teams.audited("publish.denied", reason="rate_limited")
    assert record["relay"]["publisher"]["id"] == "slow"


async def test_a_quota_of_bytes(teams: Relay) -> None:
    """A large message passes once, and is paid for before the next."""
    large = json.dumps({"channel": "prices.heavy.A", "data": "x" * 500}).encode()
    assert (await teams.publish_raw(large, key="heavy.heavy")).status_code == 200
    answer = await teams.publish_raw(large, key="heavy.heavy")
    assert (answer.status_code, answer.json()["message"]) == (429, "The quota of heavy is 100/minute bytes.")


async def test_a_batch_beyond_the_quota_is_refused_by_the_message(tmp_path: Path) -> None:
    """Those within it are published."""
    with running(tmp_path, extra=publisher("slow", channels=["prices.slow.>"], rate="3/minute")) as relay:
        body = b"\n".join([b'{"channel":"prices.slow.A","data":1}'] * 5)
        kind = {"Content-Type": "application/x-ndjson"}
        answer = await relay.publish_raw(body, key="slow.slow", path="/v1/publish/batch", **kind)
        codes = [result.get("code") for result in answer.json()["results"]]
        assert codes == [None, None, None, "rate_limited", "rate_limited"]
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        again = await relay.publish_raw(body, key="slow.slow", path="/v1/publish/batch", **kind)
        assert (again.status_code, again.json()["code"]) == (429, "rate_limited"), "nothing of it would fit"
        assert 1 <= int(again.headers["Retry-After"]) <= 60


async def test_what_is_refused_is_charged_and_the_quota_comes_back(tmp_path: Path) -> None:
    """Bad messages and foreign channels cost as much as good ones; with time the next good one is taken."""
    with running(tmp_path, extra=publisher("brisk", channels=["prices.brisk.>"], rate="4/second")) as relay:
        bad = [b"{", b'{"channel":"orders.1","data":1}', b'{"channel":"prices.brisk.A"}', b"[]"]
        statuses = [(await relay.publish_raw(body, key="brisk.brisk")).status_code for body in bad * 3]
        assert statuses[:4] == [400, 403, 400, 400]
        assert 429 in statuses[4:]
        async with asyncio.timeout(10):
            while (
                await relay.publish_raw(b'{"channel":"prices.brisk.A","data":1}', key="brisk.brisk")
            ).is_error:
                pass


async def test_on_the_socket_a_quota_is_credit(teams: Relay) -> None:
    """The first credit is what may come at once; more comes with time, by an ack of its own."""
    async with publishing(teams, "paced.paced") as paced:
        credit = paced.welcome["credit"]
        assert credit == 200
        await paced.send(*(paced.line("prices.paced.A", value) for value in range(200)))
        acks = [await paced.next()]
        while acks[-1]["credit"] <= 200:
            acks.append(await paced.next())
        assert all(ack["upto"] == 200 for ack in acks)
        more = acks[-1]["credit"] - 200
        await paced.send(*(paced.line("prices.paced.A", value) for value in range(more)))
        while (await paced.next())["upto"] < 200 + more:
            pass


async def test_beyond_the_credit_is_4029(tmp_path: Path) -> None:
    """Who does not wait is not waited for."""
    with running(tmp_path, extra=publisher("slow", channels=["prices.slow.>"], rate="3/minute")) as relay:
        async with publishing(relay, "slow.slow") as slow:
            await slow.send(*(slow.line("prices.slow.A", value) for value in range(4)))
            frames = [await slow.next() for _ in range(2)]
            assert [(frame["type"], frame.get("upto")) for frame in frames] == [("ack", 3), ("error", None)]
            assert await slow.closed() == (4029, "rate_limited: The credit ends at 3: wait for an ack.")


async def test_operators_see_who_publishes(relay: Relay) -> None:
    """What each may and did; keys and secrets are not there."""
    await relay.publish("prices.SEEN", 1, version=1)
    await relay.publish("prices.SEEN", 1, version=1)
    answer = await operate(relay, "GET", "/v1/publishers", key=READER)
    (row,) = [row for row in answer.json()["publishers"] if row["publisher"] == "pricing"]
    assert row["channels"] == ["prices.>", "trades.>"]
    assert (row["exclusive"], row["rate"], row["byte_rate"]) == (False, "", "")
    assert row["published"] >= 1
    assert row["stale"] >= 1
    assert row["last_at"] > 1_700_000_000
    assert "secret" not in answer.text
    assert "sha256" not in answer.text


async def count(relay: Relay, *channels: str) -> dict[str, int]:
    """Ask how many watch channels."""
    query = "&".join(f"channel={channel}" for channel in channels)
    answer = await relay.get_internal(f"/v1/subscribers?{query}", key=PUBLISHER_KEY)
    assert answer.status_code == 200, answer.text
    counts = answer.json()["subscribers"]
    assert isinstance(counts, dict)
    return counts


async def until(relay: Relay, wanted: dict[str, int]) -> None:
    """Wait until the counts are as wanted: a closed connection leaves a moment later."""
    async with asyncio.timeout(10):
        while True:
            if (
                await count(relay, *wanted) == wanted
            ):  # each question is a request; there is nothing that tells
                return


async def test_a_publisher_learns_who_watches(relay: Relay) -> None:
    """By name and by pattern, each connection once, and before there is a value."""
    first, second = "prices.w.A", "prices.w.B"
    await relay.publish(first, 1)
    assert await count(relay, first, second) == {first: 0, second: 0}
    async with contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(relay.connect(await relay.token(channels=["prices.w.*"])))
        assert (await one.next())["code"] == "nothing_subscribed"
        await one.send(type="subscribe", id=1, channels=["prices.w.*", first])
        await one.read("subscribed")
        two = await stack.enter_async_context(relay.connect(await relay.token(channels=[first])))
        await two.read("subscribed")
        assert await count(relay, first, second) == {first: 2, second: 1}
        await relay.publish(second, 1)
        assert await count(relay, first, second) == {first: 2, second: 1}
        await one.send(type="unsubscribe", id=2, channels=["prices.w.*"])
        while (await one.next())["type"] != "unsubscribed":
            pass  # the snapshots came first
        assert await count(relay, first, second) == {first: 2, second: 0}
    await until(relay, {first: 0, second: 0})


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?channel=", 400),
        ("?channel=prices.*", 400),
        ("?channel=prices.A&more=1", 400),
        ("?" + "&".join(["channel=prices.A"] * 101), 400),
        ("?channel=orders.1", 403),
    ],
)
async def test_other_questions_are_refused(relay: Relay, query: str, status: int) -> None:
    """With a sentence; other teams' channels are none of its business."""
    answer = await relay.get_internal(f"/v1/subscribers{query}", key=PUBLISHER_KEY)
    assert answer.status_code == status, answer.text
    assert len(answer.json()["message"]) > 10


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (["prices.>"], ["prices.A"], True),
        (["prices.*"], ["*.A"], True),
        (["prices.A"], ["prices.B"], False),
        (["prices.>"], ["trades.>"], False),
    ],
)
@pytest.mark.parametrize("exclusive", [(True, False), (False, True), (False, False)])
def test_exclusive_channels_have_one_publisher(
    tmp_path: Path, first: list[str], second: list[str], refused: bool, exclusive: tuple[bool, bool]
) -> None:
    """The settings are refused with both names; without the mark teams may share."""
    sections = publisher("one", channels=first, exclusive=exclusive[0])
    sections += publisher("two", channels=second, exclusive=exclusive[1])
    make_relay(tmp_path, extra=sections)
    path = tmp_path / "relay.toml"
    # the publisher that every test relay has may publish everything, so it has to go
    text = path.read_text()
    head, _, rest = text.partition("[publishers.pricing]")
    path.write_text(head + rest[rest.index("[endpoints.depth]") :])
    if refused and any(exclusive):
        with pytest.raises(ConfigurationError, match=r"publishers\.one .*publishers\.two .*is exclusive"):
            load(path)
    else:
        load(path)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 500)), max_size=60))
def test_a_quota_holds_in_the_long_run(calls: list[tuple[float, int]]) -> None:
    """However calls are spread: never more than a burst, what time has brought, and one message that was owed."""
    quota, now, messages, size = (
        Quota(QuotaTerms(rate="5/second", byte_rate="100/second"), now=0.0),
        0.0,
        0,
        0,
    )
    for pause, length in calls:
        now += pause
        room = quota.room(now, 1000)
        wait = quota.wait_s(now)
        assert (room == 0) == (wait > 0)
        if wait == 0:
            quota.charge(now, length)
            messages += 1
            size += length
        else:
            assert quota.wait_s(now + wait + 1e-6) == 0
            now += wait + 1e-6
        assert messages <= 5 + 5 * now + 1
        assert size <= 100 + 100 * now + 500
