"""Tokens, keys and sessions never reach a log, an exception or a repr, at any level."""

import logging
import traceback
from pathlib import Path

import pytest

from relay.client import (
    Backoff,
    Closed,
    Publisher,
    RefusedError,
    Snapshot,
    Subscriber,
    Update,
    Welcome,
    fetch_token,
)
from tests.support.compression_ways import way
from tests.support.relay_process import PUBLISHER_KEY, PUBLISHER_SECRET, running

pytestmark = pytest.mark.usefixtures("compression")

BAD_TOKEN = "canary1.canary2.canary3"


async def test_the_whole_story_at_debug_shows_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Session, scoped tokens and keys, good and refused, with every logger of every package at DEBUG."""
    caplog.set_level(logging.DEBUG)
    for name in ("websockets", "websockets.client", "relay.client.wire", "httpx", "httpcore", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    said: list[str] = []
    with running(tmp_path) as relay:
        session = relay.session()
        tokens: list[str] = []

        async def token() -> str:
            scoped = await fetch_token(relay.url, session)
            said.append(repr(scoped))
            tokens.append(scoped.token)
            return scoped.token

        prices = Subscriber(
            f"{relay.stream_url}/ws/prices",
            token,
            backoff=Backoff(first_s=0, cap_s=0),
            compress=way.compressed,
        )
        async with prices, Publisher(relay.internal_url, PUBLISHER_KEY) as publisher:
            said.append(repr((prices, publisher)))
            await prices.subscribe("prices.A", interval_ms=50 if way.compressed else 0)
            async for event in prices:
                said.append(repr(event))
                if isinstance(event, Welcome):
                    await publisher.publish("prices.A", 1)
                if isinstance(event, Snapshot | Update):
                    break
        used = Subscriber(f"{relay.stream_url}/ws/prices", tokens[0])
        bad = Subscriber(f"{relay.stream_url}/ws/prices", BAD_TOKEN)
        for refused in (used, bad):
            async with refused:
                with pytest.raises(RefusedError) as caught:
                    await anext(refused)
            said.append("".join(traceback.format_exception(caught.value)))
        async with Publisher(relay.internal_url, "pricing.canary4") as publisher:
            with pytest.raises(RefusedError) as caught:
                await publisher.publish("prices.A", 1)
            said.append("".join(traceback.format_exception(caught.value)))
    async with Subscriber("ws://127.0.0.1:9/ws/prices", token=BAD_TOKEN) as nobody:
        event = await anext(nobody)
        assert isinstance(event, Closed)
        said.append(repr(event))

    text = caplog.text + "".join(said)
    assert "127.0.0.1" in text  # something was logged at all
    for secret in (session, *tokens, PUBLISHER_SECRET, "canary"):
        for part in (secret, secret.rpartition(".")[2]):
            assert part not in text
