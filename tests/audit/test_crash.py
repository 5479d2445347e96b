"""kill -9 in the middle of writing: what was acknowledged is in the log, and the next start goes on from there."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay.audit.chain import Link, unseal
from relay.audit.verdict import Kind
from tests.support.audit_logs import checked, write_log

WRITER = """
import asyncio, sys
from pathlib import Path
from relay.audit.jsonl import JsonlAuditor
from tests.support.audit_logs import an_event

async def main():
    auditor = JsonlAuditor.open(Path(sys.argv[1]), node="node-1")
    number = 0
    while True:
        for _ in range(50):
            auditor.note(an_event(number))
            number += 1
        await auditor.record(an_event(number))
        print(auditor.head, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 7, 20])
def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    """The log is whole or ends in a torn line; every acknowledged record is in it, before and after a restart."""
    path = tmp_path / "audit.jsonl"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        for _ in range(acknowledged):
            head = Link.parse(process.stdout.readline().decode().strip())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().decode().splitlines(keepends=True)
    assert process.returncode == -signal.SIGKILL
    head = Link.parse([*(line.strip() for line in rest if line.endswith("\n")), str(head)][0])
    before = checked(path, head)
    assert before.ok or (before.problem is not None and before.problem.kind is Kind.TORN_END)
    assert before.proven == head.seq
    lines = write_log(path, 3)
    after = checked(path, unseal(lines[-1]).link)
    assert after.ok, after
    assert after.records == before.records + after.torn + 3
    assert checked(path, head).proven == head.seq
