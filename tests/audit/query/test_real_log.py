"""Questions to the log of a relay that really ran, was killed and ran again: its settings say where the log is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.relay_process import running


def ask(config: Path, *arguments: str, is_killed: bool = False) -> Any:
    """Run a question as its user does, and return what it answers."""
    command = [sys.executable, "-m", "relay", "audit", *arguments, "--config", str(config), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=os.sep)
    assert result.stderr.splitlines()[-1].startswith("Known up to record ")
    assert ("without closing the log" in result.stderr) is is_killed
    return json.loads(result.stdout)


async def test_the_answers_are_what_happened(tmp_path: Path) -> None:
    """Two connections, one closed and one cut by kill -9, a replay, a refusal: each question knows of them."""
    with running(tmp_path) as relay:
        config = tmp_path / "relay.toml"
        alice, bob = relay.session(sub="alice"), relay.session(sub="bob", roles=["guest"])
        token = await relay.token(alice)
        async with relay.connect(token, query="?channels=prices.ETH-USD") as socket:
            await socket.read("subscribed")
            while not (connected := ask(config, "who", "prices")):
                pass  # the record of a connection follows within 0.25 s
            assert [row["user"] for row in connected] == ["alice"]
            (open_,) = [row for row in ask(config, "scopes") if row["whose"] == "trader"]
            assert (open_["scope"], open_["connections"]) == ("prices.>", 1), "it is used while it is open"
        closed = await relay.audited("connection.closed")
        async with relay.connect(await relay.token(bob), query="?channels=prices.BTC-USD") as socket:
            await socket.read("subscribed")
            while not (connected := ask(config, "who", "prices")):
                pass  # the record of a connection follows within 0.25 s
            assert [row["user"] for row in connected] == ["bob"]
            relay.kill()
        relay.start()

        assert ask(config, "who", "prices", is_killed=True) == [], (
            "no user stays connected to a relay that was killed"
        )
        accepted = [record for record in relay.audit() if record["event"]["action"] == "connect.accepted"]
        then = accepted[-1]["@timestamp"]
        (row,) = ask(config, "who", "prices", "--at", then, is_killed=True)
        assert (row["user"], row["killed"]) == ("bob", True)

        story = [
            step["action"] for step in ask(config, "why", closed["relay"]["connection"]["id"], is_killed=True)
        ]
        assert story == ["token.issued", "connect.accepted", "connection.closed"]

        candidate = tmp_path / "candidate.toml"
        candidate.write_text(
            '[grants]\ntrader.prices = ["prices.BTC-USD"]\nguest.prices = ["prices.BTC-USD"]\n'
        )
        (loss,) = ask(config, "scopes", "--candidate", str(candidate), is_killed=True)
        assert (loss["user"], loss["connections"], loss["missed"]) == ("alice", 1, ["prices.ETH-USD"])
        counted = {row["action"]: row["count"] for row in ask(config, "stats", is_killed=True)["actions"]}
        assert (counted["token.issued"], counted["connection.closed"], counted["audit.gap"]) == (2, 1, 1)
