"""A disk that is full: no token without its record, sockets live on, the log says what it lacks, and it comes back."""

import asyncio
import json
import resource
from pathlib import Path

from tests.support.audit_logs import whole
from tests.support.relay_process import Relay, running


def limit(relay: Relay, size: int) -> None:
    """Let the relay's process write no file beyond this size; -1: any."""
    assert relay.process is not None
    _, most = resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (size, most))


async def test_a_full_disk_stops_tokens_and_nothing_else(tmp_path: Path) -> None:
    """The disk is full in the middle of the log, as a quota or a file system fills."""
    # the process's own log goes elsewhere, and would be hit as well
    (tmp_path / "relay.log").symlink_to("/dev/null")
    with running(tmp_path) as relay:
        async with relay.connect(await relay.token(), query="?channels=prices.A") as socket:
            await socket.read("subscribed")
            await relay.audited("connect.accepted")
            limit(relay, relay.audit_path.stat().st_size + 10)
            for _ in range(3):
                refused = await relay.ask()
                assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
                assert int(refused.headers["Retry-After"]) >= 1
            refusals = 3
            assert (await relay.publish("prices.A", 1)).status_code == 200
            assert (await socket.read("snapshot"))["data"] == 1

            limit(relay, -1)
            async with asyncio.timeout(10):
                while (await relay.ask()).status_code != 200:
                    refusals += 1
        assert relay.stop() == 0
        lines = relay.audit_path.read_bytes().splitlines()
        (gap,) = [json.loads(line) for line in lines if b'"audit.gap"' in line]  # one line is torn
        written = sum(b'"token.denied"' in line and b'"audit.gap"' not in line for line in lines)
        assert written + gap["relay"]["lost"]["token.denied"] == refusals, "each is in the log, or counted"
        assert whole(relay.audit_path)
