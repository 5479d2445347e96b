"""A frame that the relay can't accept: its message is refused, and the others are published."""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from relay.client import Backoff, Message, Publisher, PublishError, Receipt
from relay.client.publishing import messages
from tests.support.relay_process import PUBLISHER_KEY, running
from tests.support.scripted_ingest import KEY, ingest_server, refused
from tests.support.scripted_servers import answer, http_server

WRONG_KEY = {"code": "invalid_key", "message": "The key is wrong.", "retryable": False}


def _quick() -> Backoff:
    return Backoff(first_s=0, cap_s=0)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009])
async def test_the_message_that_ends_connections_is_singled_out(code: int) -> None:
    """Of many messages on their way one ends the connection: it alone is refused, and each other is published once."""
    async with (
        ingest_server(poison="poison", poison_code=code) as ingest,
        Publisher(ingest.url, KEY, backoff=_quick) as publisher,
    ):
        before = await publisher.publish_many(("trades.A", number) for number in range(5))
        results = await publisher.publish_many(
            ("trades.A", "poison" if number == 70 else number) for number in range(5, 300)
        )
        after = await publisher.publish("trades.A", 300)
    refusals = [place for place, result in enumerate(results) if isinstance(result, PublishError)]
    assert refusals == [65]
    assert all(isinstance(result, Receipt) for result in (*before, after))
    assert ingest.data("trades.A") == [number for number in range(301) if number != 70]


async def test_a_server_that_ends_every_connection_ends_publishing() -> None:
    """If each message ends its connection, the server is at fault, and all that waits gets its error."""
    async with (
        ingest_server(close=(1008, "malformed")) as ingest,
        Publisher(ingest.url, KEY, backoff=_quick) as publisher,
    ):
        for number in range(6):
            await publisher.send("trades.A", number)
        with pytest.raises(PublishError, match="6 messages were not published"):
            await publisher.flush()
    assert len(ingest.connections) <= 6


async def test_a_batch_is_not_refused_for_one_message() -> None:
    """Over HTTP a request that is refused as a whole is sent again message by message."""
    refusal = {"code": "invalid_request", "message": "Not UTF-8.", "retryable": False}
    taken = {"channel": "prices.A", "epoch": "e1", "seq": 1}
    answers = (answer(400, refusal), answer(200, taken), answer(400, refusal), answer(200, taken))
    async with (
        http_server(*answers) as server,
        Publisher(server.url, KEY, transport="http", backoff=_quick) as publisher,
    ):
        results = await publisher.publish_many([("prices.A", 1), ("prices.A", 2), ("prices.A", 3)])
    assert [isinstance(result, Receipt) for result in results] == [True, False, True]
    assert [path for path, _, _ in server.requests] == ["/v1/publish/batch", *["/v1/publish"] * 3]


async def test_a_real_relay_gets_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not UTF-8, from a client that does not check them, cost one message and no other."""
    with running(tmp_path) as relay:
        async with Publisher(relay.internal_url, PUBLISHER_KEY) as publisher:
            broken = Message(channel="prices.A", data=b'"caf\xe9"')
            [result] = await publisher.publish_many([broken])
            assert isinstance(result, PublishError), "the client checks"
            monkeypatch.setattr(messages, "check_data", lambda _: None)
            results = await publisher.publish_many(
                [*(("trades.A", number) for number in range(40)), broken, ("trades.A", 40), ("prices.B", 1)]
            )
            assert [place for place, one in enumerate(results) if isinstance(one, PublishError)] == [40]
            assert isinstance(await publisher.publish("prices.A", 1), Receipt)


async def test_a_latin_1_line_of_a_file_is_refused_alone(tmp_path: Path) -> None:
    """`relay publish --file` names the line, publishes the others, and ends with exit code 1."""
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'"one"\n"caf\xe9"\n"three"\n')
    with running(tmp_path) as relay:
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *(sys.executable, "-m", "relay", "publish", "prices.A", "--file", str(file)),
                *("--url", relay.internal_url, "--key", PUBLISHER_KEY),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "2 published, 1 failed" in done.stdout
    assert "line 2" in done.stderr


async def test_a_refused_key_is_raised_by_the_next_send() -> None:
    """A publisher that only sends is told of a wrong key, and goes on when the key is right."""
    reported: list[tuple[str, float]] = []
    async with ingest_server(refusals=[refused(401, WRONG_KEY)]) as ingest:
        publisher = Publisher(
            ingest.url,
            KEY,
            backoff=_quick,
            on_reconnect=lambda error, wait_s: reported.append((error.code, wait_s)),
        )
        async with publisher:
            await publisher.send("prices.A", 1)
            with pytest.raises(PublishError, match="key is wrong"):
                await publisher.flush()
            await publisher.send("prices.A", 2)
            await publisher.flush()
            assert ingest.data("prices.A") == [2]
    assert reported == [("invalid_key", 0.0)]


async def test_a_relay_that_keeps_refusing_is_asked_less_and_less(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sends with a wrong key raise and are logged; the relay gets few handshakes and logs one line of its own."""
    caplog.set_level(logging.WARNING, "relay.client")
    waits: list[float] = []
    sends = refusals = 0
    with running(tmp_path) as relay:
        publisher = Publisher(
            relay.internal_url, "pricing.wrong", on_reconnect=lambda _, wait_s: waits.append(wait_s)
        )
        async with publisher:
            while len(waits) < 4:
                sends += 1
                try:
                    await publisher.send("prices.A", sends)
                    await publisher.flush()
                except PublishError as error:
                    assert error.code == "invalid_key"  # noqa: PT017  # most calls raise, and some don't
                    refusals += 1
        log = relay.log_path.read_text()
    assert refusals >= 4
    assert any("key" in record.getMessage() for record in caplog.records)
    assert "without completing handshake" not in log
    [line] = [line for line in log.splitlines() if "a publisher was refused" in line]
    assert "127.0.0.1" in line
    assert "publisher_unknown" in line


def test_what_is_encoded_has_no_other_form() -> None:
    """The lines of a frame stay JSON, whatever text a value has."""
    encoded = messages.encode_message(Message(channel="prices.A", data={"name": "caf\u00e9\n"}))
    assert json.loads(b"{%b}" % encoded.members)["data"] == {"name": "caf\u00e9\n"}
