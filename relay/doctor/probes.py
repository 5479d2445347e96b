"""The facts that the checks need about this machine and other servers, gathered before the checks run.

Only servers that the settings name are asked, and only for their time: one GET each, without a credential. Any answer
with a Date header will do. The engine is asked for what it says of itself.
"""

import asyncio
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from relay.core.errors import ConfigurationError
from relay.doctor.base import ClockReading, Deployment, EngineFacts, host_of
from relay.engine.address import read_address
from relay.engine.options import CONTROL, EngineOptions
from relay.net.http_client import async_client
from relay.net.sockets import open_files
from relay.settings.load import Settings

if TYPE_CHECKING:
    from relay.engine.connection import EngineConnection

ANSWER_WITHIN_S: Final = 3.0
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


async def gather(settings: Settings, file: Path | None, *, ask: bool) -> Deployment:
    """Return the deployment of these settings on this machine. With `ask` False, no other server is asked."""
    clocks = await asyncio.gather(*(_read_clock(*one) for one in _servers(settings).items())) if ask else []
    return Deployment(
        settings=settings,
        file=file,
        now=time.time(),
        open_files=open_files(),
        filesystem_of=filesystem_of,
        clocks=clocks,
        engine=await read_engine(settings) if ask else None,
    )


def _servers(settings: Settings) -> Mapping[str, str]:
    """Return the URLs of the servers whose clock matters, by their setting."""
    signed, upstream = settings.session.signed, settings.session.upstream
    named = {
        "tokens.jwks_url": settings.tokens.jwks_url,
        "session.signed.jwks_url": None if signed is None else signed.jwks_url,
        "session.upstream.me": None if upstream is None else upstream.me,
        "bff.backend": settings.bff.backend,
    }
    return {setting: url for setting, url in named.items() if url is not None}


async def _read_clock(setting: str, url: str) -> ClockReading:
    host = host_of(url.partition("://")[2].partition("/")[0])
    try:
        async with (
            asyncio.timeout(ANSWER_WITHIN_S),
            async_client(url, timeout_s=ANSWER_WITHIN_S) as client,
        ):
            asked = time.time()
            async with client.stream("GET", url) as response:
                answered = time.time()
                theirs = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (httpx.HTTPError, TimeoutError, KeyError, ValueError):
        return ClockReading(setting=setting, host=host, ahead_s=None)
    return ClockReading(setting=setting, host=host, ahead_s=ahead_by(asked, answered, theirs))


async def read_engine(settings: Settings) -> EngineFacts | None:
    """Ask the engine. None: the settings name none."""
    url = settings.engine.url.get_secret_value()
    if not url:
        return None
    try:
        address = read_address(url, password_file=settings.engine.password_file)
        from relay.engine.connection import EngineError, connections_to_all
        from relay.engine.probe import probe

        options = EngineOptions(address=address, prefix=settings.engine.prefix)
        await probe(options)
    except ConfigurationError as error:
        return EngineFacts(fault=str(error))
    try:
        async with connections_to_all(address, options.on_each_server) as servers:
            facts = [await _read_server(connection) for connection in servers.values()]
            nodes = await _count_nodes(servers[CONTROL], options)
    except EngineError as error:
        return EngineFacts(fault=f"engine.url: {address} does not answer ({error})")
    # of a cluster: each shard is on one of its servers, so the weakest one counts, and the memory is that of all
    return EngineFacts(
        ahead_s=max((one.ahead_s for one in facts), key=abs),
        memory=sum(one.memory for one in facts) if all(one.memory for one in facts) else 0,
        is_persistent=all(one.is_persistent for one in facts),
        replicas=min(one.replicas for one in facts),
        needs_replicas=all(one.needs_replicas for one in facts),
        nodes=nodes,
        has_sentinels=address.kind == "sentinel",
    )


async def _count_nodes(connection: "EngineConnection", options: EngineOptions) -> int:
    from relay.engine.connection import RefusedError
    from relay.engine.nodes import read_node

    (rows,) = await connection.run([("HGETALL", options.key(CONTROL, "nodes"))], within_s=ANSWER_WITHIN_S)
    if isinstance(rows, RefusedError):
        raise rows
    nodes = [read_node(*row) for row in zip(rows[::2], rows[1::2], strict=True)]
    return sum(not node.has_ended for node in nodes)


async def _read_server(connection: "EngineConnection") -> EngineFacts:
    from relay.engine.connection import RefusedError

    asked = time.time()
    (theirs,) = await connection.run([("TIME",)], within_s=ANSWER_WITHIN_S)
    ours = (asked + time.time()) / 2
    replies = await connection.run(
        [("INFO", section) for section in ("memory", "persistence", "replication")],
        within_s=ANSWER_WITHIN_S,
    )
    if found := next((one for one in (theirs, *replies) if isinstance(one, RefusedError)), None):
        raise found
    told = dict(
        line.split(":", 1) for reply in replies for line in reply.decode().splitlines() if ":" in line
    )
    return EngineFacts(
        ahead_s=ours - int(theirs[0]) - int(theirs[1]) / 1e6,
        memory=int(told.get("maxmemory", 0)) or int(told.get("total_system_memory", 0)),
        is_persistent=told.get("aof_enabled") == "1"
        or (told.get("rdb_last_save_time", "0") != "0" and told.get("rdb_saves", "0") != "0"),
        replicas=int(told.get("connected_slaves", 0)),
        needs_replicas="min_slaves_good_slaves" in told,
    )


def ahead_by(asked: float, answered: float, theirs: float) -> float:
    """Return the least number of seconds by which this clock is ahead, if `theirs` was read between the other two.

    `theirs` is a whole second, so the real time lies anywhere in that second.
    """
    if asked > theirs + 1:
        return asked - (theirs + 1)
    return min(0.0, answered - theirs)


def filesystem_of(path: Path) -> str:
    """Return the type of file system of `path`, which need not exist; "" if the system does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    target = path.resolve()
    longest, kind = -1, ""
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        for escaped, plain in _ESCAPES.items():
            mounted = mounted.replace(escaped, plain)
        # of two mounts at one place, the later one covers the earlier one
        if target.is_relative_to(mounted) and len(mounted) >= longest:
            longest, kind = len(mounted), found
    return kind
