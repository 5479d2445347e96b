"""What /metrics says of a running relay, against what clients counted and what the audit log has."""

import asyncio
import shutil
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.metrics_scrape import OPENMETRICS, Samples, samples, scrape, value
from tests.support.operators import OPERATORS, READER, operate, revoke
from tests.support.relay_process import Relay, running

MESSAGES = 7
SOCKETS = 3


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators."""
    with running(tmp_path_factory.mktemp("watched"), extra=OPERATORS) as relay:
        yield relay


async def when(relay: Relay, name: str, wanted: float, **labels: str) -> Samples:
    """Scrape until a metric has a value: events are counted when they are noted, a moment after the client knows."""
    async with asyncio.timeout(10):
        while True:
            found = samples((await scrape(relay)).text)
            if value(found, name, **labels) == wanted:
                return found
            await asyncio.sleep(0.01)  # nothing tells when the server has counted


async def test_the_numbers_are_the_clients_own(watched: Relay) -> None:
    """Tokens, connects, live connections, deliveries: each counted at the other end as well."""
    tokens = [await watched.token() for _ in range(SOCKETS)]
    assert (await watched.ask("no-session")).status_code == 401
    received = Counter[int]()

    async def listen(index: int) -> None:
        async with watched.connect(tokens[index], query="?channels=prices.A,prices.B") as socket:
            await socket.read("subscribed")
            ready.release()
            while received[index] < MESSAGES * 2:
                received[index] += (await socket.next())["type"] in ("update", "snapshot")
            await done.wait()

    ready, done = asyncio.Semaphore(0), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(listen(index)) for index in range(SOCKETS)]
        for _ in tasks:
            await ready.acquire()
        for number in range(MESSAGES):
            for channel in ("prices.A", "prices.B"):
                assert (await watched.publish(channel, number)).status_code == 200
        live = await when(watched, "relay_deliveries_total", SOCKETS * MESSAGES * 2)
        done.set()
    assert value(live, "relay_connections", endpoint="prices") == SOCKETS
    assert value(live, "relay_connections", endpoint="trades") == 0
    assert value(live, "relay_fanout_publications_total") == MESSAGES * 2
    assert value(live, "relay_publications_total", publisher="pricing", outcome="published") == MESSAGES * 2
    assert value(live, "relay_published_bytes_total", publisher="pricing") == MESSAGES * 2
    assert value(live, "relay_channels", endpoint="prices", state="live") == 2
    assert 0 <= value(live, "relay_newest_value_age_seconds", endpoint="prices") < 60
    assert not [name for name, labels in live if "value_age" in name and ("endpoint", "depth") in labels]
    assert value(live, "relay_flush_seconds_count") > 0

    with pytest.raises(Exception, match="401"):
        async with watched.connect(tokens[0]):
            pass
    after = await when(watched, "relay_connections", 0)
    after = await when(watched, "relay_connections_closed_total", SOCKETS, reason="client_closed")
    assert value(after, "relay_tokens_total", outcome="success") == SOCKETS
    assert value(after, "relay_tokens_total", outcome="failure", reason="session_invalid") == 1
    assert value(after, "relay_sessions_refused_total") == 1
    assert value(after, "relay_connects_total", outcome="success") == SOCKETS
    assert value(after, "relay_connects_total", outcome="failure", reason="token_replayed") == 1
    assert value(after, "relay_audit_lost_events_total") == 0


async def test_the_audit_log_has_the_same_counts(watched: Relay) -> None:
    """Both are made from the same events: action by action."""
    await revoke(watched, sub="nobody")
    now = samples((await scrape(watched)).text)
    counted = {
        dict(labels)["action"]: int(number)
        for (name, labels), number in now.items()
        if name == "relay_events_total"
    }
    async with asyncio.timeout(10):
        while True:
            recorded = Counter(record["event"]["action"] for record in watched.audit())
            if all(recorded[action] == number for action, number in counted.items()):
                break
            await asyncio.sleep(0.01)  # the log is a file: there is nothing to await
    assert counted["operator.action"] >= 2
    assert counted["token.issued"] == recorded["token.issued"]


async def test_both_formats_parse(watched: Relay) -> None:
    """The classic text and OpenMetrics have the same names; process and collector numbers are there."""
    classic = await scrape(watched)
    assert classic.headers["content-type"].startswith("text/plain; version=0.0.4")
    strict = await scrape(watched, OPENMETRICS)
    assert strict.headers["content-type"].startswith("application/openmetrics-text")
    names = {name for name, _ in samples(classic.text)}
    assert names == {name for name, _ in samples(strict.text, openmetrics=True)}
    assert {"process_resident_memory_bytes", "python_gc_collections_total", "relay_info"} <= names
    assert classic.headers["cache-control"] == "private, no-store"


async def test_nothing_is_labelled_by_what_is_unbounded(watched: Relay) -> None:
    """No channel, user, session, token or address is in any label, whatever was published and asked for."""
    allowed = {"endpoint", "state", "outcome", "reason", "action", "part", "version", "role", "le"}
    allowed |= {"generation", "publisher"}
    text = (await scrape(watched)).text
    labels = {label for name, have in samples(text) for label, _ in have}
    assert labels <= allowed
    assert "prices.A" not in text
    assert "user-1" not in text


async def test_promtool_finds_nothing_to_criticise(watched: Relay) -> None:
    """Prometheus's own checker, where it is installed."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    checker = await asyncio.create_subprocess_exec(
        *("promtool", "check", "metrics"), stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await checker.communicate((await scrape(watched)).content)
    assert (checker.returncode, said) == (0, b"")


async def test_stats_are_the_same_numbers_as_json(watched: Relay) -> None:
    """Without Prometheus, one JSON object has the same counts."""
    answer = (await operate(watched, "GET", "/v1/stats", key=READER)).json()
    now = samples((await scrape(watched)).text)
    assert answer["hub"]["deliveries"] == value(now, "relay_deliveries_total")
    assert answer["endpoints"]["prices"]["channels"] == value(now, "relay_channels", endpoint="prices")
    assert answer["connections"] == 0
    assert len(answer["times"]["flush"]["counts"]) == len(answer["times"]["bounds_s"]) + 1
    issued = [row for row in answer["events"] if row["action"] == "token.issued"]
    assert sum(row["count"] for row in issued) == value(now, "relay_events_total", action="token.issued")
    assert {row["outcome"] for row in issued} <= {"success"}


async def test_channels_are_listed_in_pages_by_name(watched: Relay) -> None:
    """Each once; with how far it is, how old its value, and how many get it. `match` narrows."""
    for number in range(5):
        await watched.publish(f"trades.X{number}", number)
    async with watched.connect(
        await watched.token(endpoint="trades"), path="/ws/trades", query="?channels=trades.X3"
    ):
        rows, after = [], ""
        while after is not None:
            page = (await operate(watched, "GET", f"/v1/channels?limit=2&match=trades.*{after}")).json()
            assert page["total"] == 5
            rows += page["channels"]
            after = page["next"] and f"&after={page['next']}"
    assert [row["channel"] for row in rows] == [f"trades.X{number}" for number in range(5)]
    assert [row["subscribers"] for row in rows] == [0, 0, 0, 1, 0]
    assert {row["endpoint"] for row in rows} == {"trades"}
    assert {row["seq"] for row in rows} == {1}
    assert all(0 <= row["age_s"] < 60 for row in rows)


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "match=..", "after=a*", "user=1"])
async def test_a_page_that_is_none(watched: Relay, query: str) -> None:
    """One sentence says what the parameter is."""
    answer = await operate(watched, "GET", f"/v1/channels?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_scrapes_do_not_fill_the_audit_log(watched: Relay) -> None:
    """A scraper is recorded once: of any number of calls of one path from one address there is one record."""
    for _ in range(5):
        await scrape(watched)
    await revoke(watched, sub="nobody-else")
    paths: Counter[str] = Counter()
    async with asyncio.timeout(10):
        while not paths["/v1/revocations"]:
            await asyncio.sleep(0.01)  # the log is a file: there is nothing to await
            actions = [one for one in watched.audit() if one["event"]["action"] == "operator.action"]
            paths = Counter(one["url"]["path"] for one in actions)
    assert paths["/metrics"] == 1
