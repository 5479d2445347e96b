"""The same marks where a backend streams, and in all that operators and security teams are shown of it."""

import asyncio
import contextlib
import json
from pathlib import Path

from typer.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from relay.cli.audit import app
from tests.support.canaries import Canaries, canary, hits
from tests.support.operators import OPERATORS, operate
from tests.support.operators import SECRET as OPERATOR_SECRET
from tests.support.raw_http import head, knock, pour, upgrade
from tests.support.relay_process import PUBLISHER_KEY, PUBLISHER_SECRET, REF_KEY, SECRET, Relay, running
from tests.support.shared_relay import assert_quiet

ROUTES = (
    *("/metrics", "/v1/stats", "/v1/channels", "/v1/audit", "/v1/audit?limit=500", "/v1/connections"),
    *("/v1/audit/why?about=user-1", "/v1/publishers", "/ops", "/openapi.json", "/ready"),
    *("/v1/audit/questions/story?name=user-1", "/v1/audit/questions/address?name=127.0.0.1"),
)
QUESTIONS = (
    *(
        ["verify"],
        ["why", "user-1"],
        ["who", "prices"],
        ["scopes"],
        ["anomalies"],
        ["stats"],
        ["holds"],
        ["refused"],
    ),
    *(["publications", "prices.>"], ["sent", "user-1", "--json"], ["recipients", "prices.A", "--seq", "1"]),
    *(
        ["diff", "2d..1d", "1d.."],
        ["sql", "SELECT * FROM lines", "--json"],
        ["sql", "FROM publications", "--csv"],
    ),
    *(["export"], ["tail", "--no-follow", "-n", "100000"], ["tail", "--no-follow", "--json", "-n", "100000"]),
)
NEWER_RECORDS = ("publish.summary", "connection.channels", "connection.closed", "audit.read")
MANY = 70
"""Channels whose rows do not fit into one record of what a connection was sent."""
ROTATED = 1400
"""Tokens whose records fill more than the megabyte after which the log goes on in another file."""


async def stream(relay: Relay, frames: list[str | bytes], *, key: str, query: str = "") -> None:
    """Send frames over /v1/ingest, of which the relay ends the connection for the last, and hear it to that end."""
    url = f"{relay.internal_url.replace('http', 'ws')}/v1/ingest{query}"
    with contextlib.suppress(ConnectionClosed, InvalidStatus):
        headers = {"Authorization": f"Bearer {key}"}
        async with connect(url, additional_headers=headers, proxy=None, compression=None) as socket:
            for frame in frames:
                await socket.send(frame)
            async with asyncio.timeout(10):
                while True:
                    await socket.recv()


async def stream_with_marks(relay: Relay, marks: Canaries) -> None:
    """Good and bad lines, keys that are wrong, and frames that are no lines at all."""
    data = marks["payload"]
    for frames in (
        [
            json.dumps({"type": "publish", "id": 1, "channel": "prices.A", "data": data}),
            json.dumps({"type": "publish", "id": 2, "channel": "nowhere.A", "data": data}),
            f'{{"type":"publish","id":3,"channel":"prices.A","data":"{data}"',
            data,
        ],
        [
            json.dumps(
                {"type": "publish", "id": 1, "channel": "trades.A", "data": 1, "idempotency_key": data}
            ),
            data,
        ],
        [data.encode()],
    ):
        await stream(relay, list(frames), key=PUBLISHER_KEY)
    for key in (f"pricing.{marks['publisher key']}", marks["publisher key"]):
        await stream(relay, [data], key=key, query=f"?key={marks['publisher key']}")


async def send_on_many_channels(relay: Relay, marks: Canaries) -> None:
    """Publish the payload on many channels, and then what ends the connection."""
    lines = [
        json.dumps({"type": "publish", "id": n + 1, "channel": f"prices.N{n}", "data": marks["payload"]})
        for n in range(MANY)
    ]
    await stream(relay, [*lines, b"end"], key=PUBLISHER_KEY)


def answers(relay: Relay) -> dict[str, str]:
    """Ask the log each question and return what is printed; and the page for an auditor."""
    shown = {}
    config, page = ["--config", str(relay.folder / "relay.toml")], relay.folder / "page.html"
    for question in (*QUESTIONS, ["report", "--html", str(page)]):
        done = CliRunner().invoke(app, [*question, *config])
        assert done.exit_code == 0, (question, done.output, done.exception)
        shown[" ".join(question)] = done.output
    return shown | {"page": page.read_text()}


def written(relay: Relay) -> dict[str, str]:
    """Return the files that a relay wrote, the older one of its audit log too."""
    (older,) = relay.folder.glob("audit-*.jsonl")
    return {
        "older": older.read_text(),
        "newer": relay.audit_path.read_text(),
        "log": relay.log_path.read_text(),
    }


async def test_nothing_that_is_shown_of_a_relay_has_a_secret(tmp_path: Path) -> None:
    """Metrics, the operators' views, the log's older file, and what each question to it answers."""
    marks = {name: canary(name) for name in ("payload", "publisher key", "session id", "query")}
    with running(tmp_path, extra=OPERATORS + "[audit]\nrotate_mb = 1\n") as relay:
        session = relay.session(sid=marks["session id"])
        marks["access token"] = session
        marks["scoped token"] = token = await relay.token(session)
        async with relay.connect(token, query=f"?channels=prices.A,prices.>&x={marks['query']}") as socket:
            await socket.read("subscribed")
            await stream_with_marks(relay, marks)
            await send_on_many_channels(relay, marks)
            while (await socket.next()).get("channel") != f"prices.N{MANY - 1}":
                pass
            await knock(relay, f"/ws/prices?token={token}&x={marks['query']}", upgrade(relay))
            asking = [("Host", "x"), ("Origin", relay.url), ("Cookie", f"access-token={session}")]
            again = head("POST", "/auth/ws-token", [*asking, ("Content-Length", "0")])
            assert await pour(relay.ports[0], again, ROTATED, source="127.0.0.1") == {200: ROTATED}
            shown = {path: (await operate(relay, "GET", path)).text for path in ROUTES}
        assert relay.stop() == 0
    shown |= await asyncio.to_thread(answers, relay)
    files = written(relay)
    assert_quiet(relay)
    marks |= {"session secret": SECRET, "ref key": REF_KEY, "publisher secret": PUBLISHER_SECRET}
    marks |= {"operator secret": OPERATOR_SECRET}
    assert all(shown.values())
    assert "relay_tokens_total" in shown["/metrics"]
    assert '"publish.denied"' in files["older"]
    assert all(f'"{action}"' in files["older"] + files["newer"] for action in NEWER_RECORDS)
    assert hits(marks, shown | files) == set()
    assert hits({"user": "user-1"}, shown) != set(), "what is no secret is found"
