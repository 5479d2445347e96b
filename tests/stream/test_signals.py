"""SIGTERM and SIGINT: clients are told, nothing hangs, and the exit code is that of an orderly stop."""

import asyncio
import signal
import subprocess
from pathlib import Path

import pytest
from websockets.frames import Opcode

from tests.support.minted_tokens import dial
from tests.support.raw_websocket import masked, open_raw_websocket
from tests.support.relay_process import Relay, running

WITHIN_S = 5
"""An orderly stop takes two; a machine that runs other tests beside this one takes longer."""


def signalled(relay: Relay, number: int) -> int:
    """Send the signal and return the exit code; fails if the process needs longer than an operator waits."""
    assert relay.process is not None
    relay.process.send_signal(number)
    try:
        return relay.process.wait(WITHIN_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the relay still runs {WITHIN_S} s after the signal")


@pytest.mark.parametrize(
    ("number", "code", "text", "reason"),
    [
        (signal.SIGTERM, 1012, b"restart", "server_restarting"),
        (signal.SIGINT, 1001, b"going_away", "server_stopping"),
    ],
)
async def test_a_signal_ends_the_relay_in_order(
    tmp_path: Path, number: int, code: int, text: bytes, reason: str
) -> None:
    """Each connection gets its close and its audit event. A client that does not read delays nothing."""
    with running(tmp_path) as relay:
        _, silent = await asyncio.open_connection("127.0.0.1", relay.ports[1])
        async with (
            dial(relay, query="&channels=prices.A") as polite,
            dial(relay, query="&channels=prices.A", receive_buffer=4096),  # reads nothing
            open_raw_websocket(relay.ports[1], "/ws/prices", origin=relay.url) as without_token,
        ):
            assert await polite.shake() == 101
            assert await without_token.shake() == 101
            await polite.message("subscribed")
            await asyncio.gather(*(relay.publish("prices.A", "x" * 60_000) for _ in range(10)))
            exit_code = asyncio.create_task(asyncio.to_thread(signalled, relay, number))
            while (frame := await polite.frame())[0] != Opcode.CLOSE:
                pass
            assert frame[1] == code.to_bytes(2, "big") + text
            polite.send(masked(Opcode.CLOSE, frame[1]))
            assert (await without_token.ending()).code == 1001
            assert await exit_code == 0
        silent.transport.abort()
        log = relay.log_path.read_text()
        assert '"error"' not in log, log
        closed = [record for record in relay.audit() if record["event"]["action"] == "connection.closed"]
        assert [record["relay"]["connection"]["close_code"] for record in closed] == [code, code]
        assert {record["event"]["reason"] for record in closed} == {reason}


async def test_a_second_signal_changes_nothing(tmp_path: Path) -> None:
    """A second Ctrl-C does not turn an orderly stop into a traceback."""
    with running(tmp_path) as relay:
        async with dial(relay) as wire:  # does not answer the close, and so keeps the relay for a second
            await wire.shake()
            assert relay.process is not None
            relay.process.send_signal(signal.SIGINT)
            while (await wire.frame())[0] != Opcode.CLOSE:
                pass
            assert await asyncio.to_thread(signalled, relay, signal.SIGINT) == 0
        log = relay.log_path.read_text()
        assert '"error"' not in log, log
