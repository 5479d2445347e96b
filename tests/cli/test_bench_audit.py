"""`relay bench audit`, and the relay without a log that it measures beside the real one."""

import json
from pathlib import Path

import msgspec

from relay.bench.load.clients import open_all, take_all
from relay.bench.load.servers import own_relay
from relay.core.events import Action
from tests.support.bench_process import measured


def test_audit_measures_the_log_beside_none(tmp_path: Path) -> None:
    """Both sides connect; only one of them writes about it."""
    found = measured(tmp_path, "audit", "--connections", "5", "--parallel", "2")
    assert [found["each"][0][side]["alone"]["connections"] for side in ("relay", "yardstick")] == [5, 5]
    assert any("The audit log costs a connection" in note for note in found["notes"])


async def test_the_relay_without_a_log_records_tokens_alone(tmp_path: Path) -> None:
    """It is a relay in everything else: it gives no token without a record, and its connections leave none."""
    actions = {}
    for program in ("relay", "relay.bench.load.unaudited_relay"):
        folder = tmp_path / program
        folder.mkdir()
        with own_relay(folder, sessions=1, program=program) as running:
            target = msgspec.structs.replace(running.target, channels=["prices.A"])
            [link] = await open_all(target, [(0,)], tokens=await take_all(target, [(0,)]))
            link.close()
        lines = next(folder.rglob("audit.jsonl")).read_bytes().splitlines()
        actions[program] = {json.loads(line)["event"]["action"] for line in lines}
    connects = {Action.CONNECT_ACCEPTED, Action.CONNECTION_CLOSED}
    assert actions["relay"] - actions["relay.bench.load.unaudited_relay"] == connects
    assert Action.TOKEN_ISSUED in actions["relay.bench.load.unaudited_relay"]
