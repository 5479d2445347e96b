"""`relay audit verify` and the heads that the engine keeps: an audit log that was cut is told from one that ended."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.audit.chain import Link
from relay.audit.files import process_path
from relay.audit.jsonl import JsonlAuditor
from relay.audit.writer import LogOptions
from relay.cli.audit import app
from relay.engine.heads import AuditPosition, kept_s, place_of, read_heads
from relay.engine.nodes import EngineNodes
from relay.engine.options import EngineOptions
from relay.server.options import audit_log_options
from relay.settings.load import load
from tests.support.audit_logs import an_event
from tests.support.engines import Engines, EngineServer
from tests.support.relay_process import make_relay


@dataclass
class Deployment:
    """The settings of a relay with an engine, and the audit logs of its processes."""

    folder: Path
    options: EngineOptions
    signer: LogOptions

    def path(self, number: int = 0) -> Path:
        """Return where a process writes, or a relay that is alone."""
        whole = self.folder / "audit.jsonl"
        return process_path(whole, number) if number else whole

    async def write(self, count: int, *, number: int = 0) -> Link:
        """Run a process that writes records and ends in order. Return the head of its log."""
        nodes = EngineNodes(options=self.options, on_format=lambda _: None)
        path = self.path(number)

        async def keep_head(head: Link) -> None:
            await nodes.keep_head(head)

        auditor = JsonlAuditor.open(path, node="n", options=self.signer, keep_head=keep_head)
        await nodes.open(AuditPosition(opened=auditor.opened, place=place_of(path), keep_s=kept_s(0)))
        for one in range(count):
            await auditor.record(an_event(one))
        await nodes.end()
        await auditor.aclose()
        await nodes.aclose()
        return auditor.head

    def cut(self, lines: int, *, number: int = 0) -> None:
        """Remove records from the end of a log."""
        whole = self.path(number).read_bytes().splitlines(keepends=True)
        self.path(number).write_bytes(b"".join(whole[:-lines]))

    async def verify(self, *arguments: object) -> Result:
        """Run the command."""
        config = ["--config", str(self.folder / "relay.toml")]
        return await asyncio.to_thread(CliRunner().invoke, app, ["verify", *config, *map(str, arguments)])


def deployment(folder: Path, engine: EngineServer) -> Deployment:
    """Make one with a prefix of its own."""
    options = engine.options()
    make_relay(folder, extra=f'[engine]\nurl = "{engine.url}"\nprefix = "{options.prefix}"')
    settings = load(folder / "relay.toml")
    return Deployment(folder=folder, options=options, signer=audit_log_options(settings))


@pytest.fixture
def logs(tmp_path: Path, engines: Engines) -> Deployment:
    """A deployment on the shared Redis. It has no state store, so the engine alone has heads."""
    return deployment(tmp_path, engines("redis"))


async def test_a_log_that_ended_is_told_from_one_that_was_cut(logs: Deployment) -> None:
    """With files of the settings and with named ones; the hashes of both fit."""
    head = await logs.write(5)
    whole = await logs.verify()
    assert (whole.exit_code, whole.stderr) == (0, "")
    assert f"whole up to record {head.seq}" in whole.stdout
    assert "and that is its end, as the given head proves, the head is the engine's, of 20" in whole.stdout
    logs.cut(2)
    for arguments in ((), (logs.path(),)):
        found = await logs.verify(*arguments)
        assert found.exit_code == 16
        assert f"the log ends before record {head.seq}" in found.stdout
        assert "The head is the engine's" in found.stdout


async def test_a_cut_stays_known_after_the_log_goes_on(logs: Deployment) -> None:
    """Otherwise a restart would cover it: the log would soon be longer than what the engine knew."""
    await logs.write(5)
    logs.cut(3)
    await logs.write(20)
    found = await logs.verify()
    assert found.exit_code == 17
    assert "and a process continued the log without it." in found.stdout
    await logs.write(1)
    assert (await logs.verify()).exit_code == 17


async def test_a_log_that_was_removed_as_a_whole_is_named(logs: Deployment, engines: Engines) -> None:
    """Of a process beside others, and the only one; but not after its time, nor that of another place."""
    await logs.write(2)
    head = await logs.write(2, number=1)
    logs.path(1).unlink()
    found = await logs.verify()
    assert found.exit_code == 11
    first, second = found.stdout.splitlines()
    assert "that is its end" in first
    assert second.startswith(
        f"{logs.path(1)}: damaged at line 1: the engine knew record {head.seq} of the log "
    )
    await logs.write(3, number=1)  # a new log in its place hides nothing
    assert (await logs.verify()).exit_code == 11

    heads = logs.options.key("c", "heads")
    engine = engines("redis")
    seq, digest, at, _, began, place = engine.run("HGET", heads, head.writer).decode().split(" ", 5)
    soon = f"{time.time() + 60:.0f}"  # audit.keep_days deletes the file at about this time
    engine.run("HSET", heads, head.writer, f"{seq} {digest} {at} {soon} {began} {place}")
    assert (await logs.verify()).exit_code == 0
    elsewhere = f"{time.time() + 1e6:.0f} {began} node-b:/var/\x1baudit.jsonl"
    engine.run("HSET", heads, head.writer, f"{seq} {digest} {at} {elsewhere}")
    found = await logs.verify()
    assert found.exit_code == 0
    assert "logs that were not checked here: node-b:/var/\\x1baudit.jsonl" in found.stderr


async def test_what_the_engine_can_not_answer_is_said_and_is_no_verdict(
    tmp_path: Path, own_engine: EngineServer
) -> None:
    """It lost its data, has a head that is none, or is away."""
    logs = deployment(tmp_path, own_engine)
    head = await logs.write(5)
    logs.cut(1)
    assert (await logs.verify()).exit_code == 16
    own_engine.run("HSET", logs.options.key("c", "heads"), head.writer, "garbage")
    wrong = await logs.verify()
    assert (wrong.exit_code, wrong.stdout.count("end unproven")) == (0, 1)
    assert "heads has a head that no relay has written" in wrong.stderr
    own_engine.run("FLUSHALL")
    lost = await logs.verify()
    assert (lost.exit_code, lost.stdout.count("end unproven")) == (0, 1)
    assert f"the engine has no head of the log {head.writer}: it has lost data since" in lost.stderr
    own_engine.stop()
    away = await logs.verify()
    assert (away.exit_code, away.stdout.count("end unproven")) == (0, 1)
    assert "the engine's heads were not compared: " in away.stderr
    given = await logs.verify("--head", head)
    assert given.exit_code == 16
    assert os.fspath(logs.path()) in given.stdout


async def test_a_loss_of_the_engines_data_loses_no_head_of_a_node_that_runs(own_engine: EngineServer) -> None:
    """It writes its head again with its row."""
    nodes = EngineNodes(options=own_engine.options(), on_format=lambda _: None)
    await nodes.open(AuditPosition(opened=Link("w", 1, "a" * 64), place="here:/log", keep_s=60))
    await nodes.keep_head(Link("w", 2, "b" * 64))
    own_engine.run("FLUSHALL")
    try:
        async with asyncio.timeout(20):
            while not await read_heads(nodes.options):  # noqa: ASYNC110  # it writes every two seconds
                await asyncio.sleep(0.05)
    finally:
        await nodes.aclose()
