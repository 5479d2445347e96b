"""SIGHUP for a relay under test, and the log line with which it answers."""

import asyncio
import json
import signal
from typing import Any

from tests.support.relay_process import Relay

_ANSWERS = ("the settings were read again", "the settings can't be used; nothing was changed")


def _answers(relay: Relay) -> list[dict[str, Any]]:
    whole, _, _ = relay.log_path.read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] in _ANSWERS]


async def reload(relay: Relay, *edits: tuple[str, str]) -> dict[str, Any]:
    """Replace texts of relay.toml, send SIGHUP, and return the log's next line about the settings."""
    file = relay.folder / "relay.toml"
    text = file.read_text()
    for old, new in edits:
        assert text.count(old) == 1, (old, text)
        text = text.replace(old, new)
    file.write_text(text)
    before = len(_answers(relay))
    assert relay.process is not None
    relay.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(10):
        while len(found := _answers(relay)) == before:
            assert relay.process.poll() is None, "SIGHUP ended the relay"
            await asyncio.sleep(0.01)  # the log is a file: there is nothing to await
    assert len(found) == before + 1
    return found[-1]
