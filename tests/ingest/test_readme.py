"""The commands for publishers in relay/ingest/README.md, pasted into a shell beside a running relay."""

import asyncio
import os
import shlex
import sys
from pathlib import Path

from tests.support.readme import ROOT, read
from tests.support.relay_process import PUBLISHER_KEY, Relay


async def test_what_a_newcomer_pastes_works(relay: Relay, tmp_path: Path) -> None:
    """Each command succeeds, and a subscriber gets every value; only the relay's port is another one here."""
    (pasted,) = [
        block.text
        for block in read(ROOT / "relay/ingest/README.md").blocks
        if block.text.startswith("curl") and "/v1/publish " in block.text
    ]
    assert len(pasted.replace("\\\n", "").splitlines()) == 4
    (tmp_path / "ticks.ndjson").write_text("1\n2\n")
    relay_command = (
        f'relay() {{ {shlex.quote(sys.executable)} -m relay "$1" --url {relay.internal_url} "${{@:2}}"; }}'
    )
    script = "\n".join(
        [
            "set -eo pipefail",
            relay_command,
            "curl() { command curl -sS --fail-with-body --noproxy '*' \"$@\"; }",
            pasted,
        ]
    )
    async with relay.connect(await relay.token(channels=["prices.BTC-USD"])) as reader:
        await reader.read("subscribed")
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-c", script.replace("http://127.0.0.1:8002", relay.internal_url)),
            cwd=tmp_path,
            env={
                **os.environ,
                "RELAY_PUBLISH_KEY": PUBLISHER_KEY,
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await shell.communicate()
        assert shell.returncode == 0, output.decode()
        assert output.decode().endswith('{"subscribers":{"prices.BTC-USD":1}}'), output.decode()
        values: list[object] = []
        while len(values) < 4:  # heartbeats may come between on a busy machine
            message = await reader.next()
            values += [message["data"]] if "data" in message else []
    price = {"bid": "64123.41", "ask": "64123.42"}
    assert values == [price, price, 1, 2]
