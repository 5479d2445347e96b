"""The copy on standard output has the file's lines and nothing else; without a reader the relay continues."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.audit.chain import Link
from relay.audit.writer import StdoutCopy
from tests.support.relay_process import Relay, make_relay


async def printed(folder: Path, what: str) -> tuple[Relay, bytes]:
    """Run a relay that copies its log, take a token, stop it; return it and its standard output."""
    relay = make_relay(folder, extra=f'[audit]\nstdout = "{what}"\n')
    command = [sys.executable, "-m", "relay", "serve", "--config", str(folder / "relay.toml")]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while not (await process.stderr.readline()).startswith(b"internal"):
        pass
    await relay.token()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(15):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return relay, out


async def test_records_are_copied_as_they_are(tmp_path: Path) -> None:
    """All of them, to the byte, and nothing else: what is collected can be checked like the file."""
    relay, out = await printed(tmp_path, "records")
    assert out == relay.audit_path.read_bytes()
    actions = [json.loads(line)["event"]["action"] for line in out.splitlines()]
    assert "token.issued" in actions
    assert actions[-1] == "audit.checkpoint"


async def test_a_copied_checkpoint_proves_the_file(tmp_path: Path) -> None:
    """It is a head kept elsewhere: with it a file whose end was cut off is found."""
    relay, out = await printed(tmp_path, "checkpoints")
    records = [json.loads(line) for line in out.splitlines()]
    assert {record["event"]["action"] for record in records} == {"audit.checkpoint"}
    chain = records[-1]["relay"]["chain"]
    head = f"{chain['writer']}:{chain['seq']}:{chain['hash']}"

    def verify() -> int:
        command = [sys.executable, "-m", "relay", "audit", "verify", "--head", head, str(relay.audit_path)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    assert verify() == 0
    lines = relay.audit_path.read_bytes().splitlines(keepends=True)
    relay.audit_path.write_bytes(b"".join(lines[:-1]))
    assert verify() == 16


@pytest.mark.parametrize("checkpoints_only", [True, False])
def test_a_reader_that_has_gone_is_told_of_once(*, checkpoints_only: bool) -> None:
    """The file is the log; each outage of the copy is one line in the process's own."""
    reader, writer = os.pipe()
    line = (b'{"event":{"action":"audit.checkpoint"}}', Link("w", 1, "0" * 64))
    copy = StdoutCopy(checkpoints_only=checkpoints_only, descriptor=writer)
    copy.write([line])
    assert os.read(reader, 100) == line[0] + b"\n"
    os.close(reader)
    with capture_logs() as logs:
        copy.write([line])
        copy.write([line])
    os.close(writer)
    assert [log["event"] for log in logs] == ["the audit log can't be copied to standard output"]
