"""One connection to the engine. This is the only module that knows redis-py.

A connection belongs to one task, which sends commands and reads their replies in the same order. Nothing is retried
here: redis-py would repeat a script whose reply was lost. A connection that failed is closed, and its owner opens
another one.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from relay.core.errors import ConfigurationError
from relay.engine.address import Address
from relay.engine.shards import slot_of
from relay.engine.texts import to_bytes

try:
    import hiredis
    from redis.asyncio.connection import (
        AbstractConnection,
        Connection,
        SSLConnection,
        UnixDomainSocketConnection,
    )
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AskError,
        AuthenticationError,
        ClusterDownError,
        MasterDownError,
        MovedError,
        NoPermissionError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisError,
        ResponseError,
        TryAgainError,
    )
except ModuleNotFoundError:
    raise ConfigurationError(
        "engine.url needs redis-py: install the relay with its extra, pip install 'scoped-relay[redis]'."
    ) from None

CONNECT_WITHIN_S = 1.0
"""Seconds for the connection and the log-in. The engine is near, and a caller waits for at most 2 s."""

Command = Sequence[bytes | str | int | float]

_CODES: dict[type[RedisError], str] = {
    NoScriptError: "NOSCRIPT",
    ReadOnlyError: "READONLY",
    OutOfMemoryError: "OOM",
    NoPermissionError: "NOPERM",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    MovedError: "MOVED",  # before its base class
    AskError: "ASK",
}
"""redis-py cuts the codes of these errors off."""
_GONE = (
    *("READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED", "NOREPLICAS", "MISCONF"),
    *("CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN"),
)
"""Codes of error replies that say something of the server and not of the command. Another server may be the master by
now, or is about to be the one of a slot that is moved. So the connection is closed, and the next one asks again which
it is."""


class EngineError(Exception):
    """The engine did not do what was asked. The text names the reason."""


class LostError(EngineError):
    """The connection broke, or no reply came in time. The command may have been executed or not."""


class RefusedError(EngineError):
    """The engine answered with an error. The command was not executed. `code` is the error's first word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text if text.startswith(code) else f"{code} {text}")
        self.code = code


class LoginError(RefusedError):
    """The engine refused the user or the password."""


def _packed(commands: Sequence[Command]) -> bytes:
    """Return commands in one piece. redis-py's asyncio side packs without hiredis, which takes five times as long."""
    try:
        return b"".join([hiredis.pack_command(cast("Any", tuple(command))) for command in commands])
    except UnicodeEncodeError:  # it knows no half of a surrogate pair
        return _packed(
            [[to_bytes(one) if isinstance(one, str) else one for one in command] for command in commands]
        )


class EngineConnection:
    """An open connection to a server. Make one with `open_connection`, and close it with `close`.

    With `following` it sends no more commands when another server is the master.
    """

    def __init__(self, connection: AbstractConnection, server: str) -> None:
        self.server = server
        """Where it leads: host and port, or a path."""
        self._connection = connection
        self.following: _Following | None = None

    async def run(self, commands: Sequence[Command], *, within_s: float) -> list[Any]:
        """Send commands in one write and return their replies. An error reply is returned as a `RefusedError`.

        Raises:
            LostError: if the replies do not all come within `within_s`, or the master is another server. Close the
                connection then.
            LoginError: if the engine wants another log-in.
        """
        if self.following is not None and self.following.has_left(self.server):
            raise LostError("the Sentinels name another master")
        try:
            async with asyncio.timeout(within_s):
                await self._connection.send_packed_command(_packed(commands), check_health=False)
                return [await self._reply() for _ in commands]
        except TimeoutError:
            raise LostError(f"no answer within {within_s:g} s") from None
        except AuthenticationError as error:  # the password was changed, or there is none in the settings
            raise LoginError("NOAUTH", str(error)) from None
        except (RedisError, OSError) as error:
            raise LostError(str(error) or repr(error)) from None

    async def _reply(self) -> Any:
        try:
            reply = await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            reply = error
        if isinstance(reply, ResponseError):
            text = str(reply)
            if text.startswith(
                "Protocol error: unauthenticated"
            ):  # longer commands get this instead of NOAUTH
                raise AuthenticationError("Authentication required")
            code = next(
                (code for kind, code in _CODES.items() if isinstance(reply, kind)), text.partition(" ")[0]
            )
            refused = RefusedError(code, text)
            if code in _GONE or "-READONLY" in text:
                raise LostError(str(refused))
            return refused
        return reply

    async def close(self) -> None:
        """Close the connection. This never fails."""
        if self.following is not None:
            await self.following.release()
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._connection.disconnect(nowait=True)


async def open_connection(address: Address, shard: str) -> EngineConnection:
    """Connect to the server that has a shard, and log in. Sentinels, and servers of a cluster, are asked which it is.

    Raises:
        LoginError: if the user or the password is refused.
        LostError: if no engine answers.
    """
    if address.kind == "unix":
        return await _connect(address, "", 0)
    if address.kind == "tcp":
        return await _connect(address, *address.hosts[0])
    failures = []
    for host, port in address.hosts:
        try:
            asking, master = await _ask(address, host, port, shard)
            await asking.close()
            connection = await _connect(address, *master)
            if address.kind == "sentinel":
                connection.following = _Following.of(address, connection.server)
            return connection
        except LoginError:
            raise
        except EngineError as error:
            failures.append(f"{host}:{port}: {error}")
    asked = "Sentinel" if address.kind == "sentinel" else "server"
    raise LostError(f"no {asked} names the master: {'; '.join(failures)}")


@contextlib.asynccontextmanager
async def connections_to_all(
    address: Address, shards: Sequence[str]
) -> AsyncIterator[Mapping[str, EngineConnection]]:
    """Connect to each server that has one of the shards, and yield the connections, each by one of its shards.

    Raises:
        EngineError: as `open_connection`.
    """
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, EngineConnection] = {}
        for shard in shards:
            connection = await open_connection(address, shard)
            stack.push_async_callback(connection.close)
            if all(connection.server != other.server for other in found.values()):
                found[shard] = connection
        yield found


async def _connect(address: Address, host: str, port: int) -> EngineConnection:
    options: dict[str, Any] = {
        "db": address.database,
        "username": address.user or None,
        "password": address.password or None,
        "socket_timeout": None,  # `run` has one limit for all its replies
        "socket_connect_timeout": CONNECT_WITHIN_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
        "health_check_interval": 0,
    }
    connection: AbstractConnection
    if address.kind == "unix":
        connection = UnixDomainSocketConnection(path=address.path, **options)
    elif address.tls:
        connection = SSLConnection(host=host, port=port, **options)
    else:
        connection = Connection(host=host, port=port, **options)
    try:
        if isinstance(connection, SSLConnection):
            connection.ssl_context.context = _tls_context(address.ca_file)
        async with asyncio.timeout(CONNECT_WITHIN_S):
            await connection.connect()  # type: ignore[no-untyped-call,unused-ignore]  # untyped in redis-py
    except BaseException as error:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await connection.disconnect(nowait=True)
        if isinstance(error, AuthenticationError | NoPermissionError):
            raise LoginError("NOAUTH", str(error)) from None
        if isinstance(error, TimeoutError):
            raise LostError(f"{address} did not answer within {CONNECT_WITHIN_S:g} s") from None
        if isinstance(error, RedisError | OSError):
            raise LostError(str(error) or repr(error)) from None
        raise
    return EngineConnection(connection, _name(host, port) if host else address.path)


def _tls_context(ca_file: str) -> ssl.SSLContext:
    return _tls_context_of(ca_file, Path(ca_file).stat().st_mtime_ns if ca_file else 0)


@lru_cache(maxsize=4)
def _tls_context_of(ca_file: str, _written_at: int) -> ssl.SSLContext:
    """Read the certificate authorities once, and again when the file has changed.

    Those of the system take 20 to 50 ms of the event loop (measured), and after a failover a node opens all connections
    again.
    """
    return ssl.create_default_context(cafile=ca_file or None)


class _Following:
    """One task asks the Sentinels who the master is, for all connections that go to the master of an address."""

    _of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, "_Following"]] = WeakKeyDictionary()

    def __init__(self, address: Address) -> None:
        self.master = ""
        """The server that a Sentinel named last."""
        self.users = 0
        self.task = asyncio.create_task(self._run(address), name="relay-engine-follow")

    @classmethod
    def of(cls, address: Address, server: str) -> "_Following":
        """Return the one of an address, for one more connection: a Sentinel has just named its server."""
        own = cls._of_loops.setdefault(asyncio.get_running_loop(), {})
        found = own.get(repr(address))
        if found is None or found.task.done() or not found.users:
            found = own[repr(address)] = cls(address)
        found.users += 1
        found.master = server
        return found

    def has_left(self, server: str) -> bool:
        """Tell whether the Sentinels name another master than `server`, or are not asked any more."""
        return self.master != server or self.task.done()

    async def release(self) -> None:
        """Use it for one connection less."""
        self.users -= 1
        if not self.users:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _run(self, address: Address) -> None:
        while True:
            for host, port in address.hosts:
                with contextlib.suppress(EngineError):
                    asking, master = await _ask(address, host, port, "")
                    try:
                        while True:
                            self.master = _name(*master)
                            await asyncio.sleep(address.follow_every_s)
                            master = await _master(asking, address, host, "")
                    finally:
                        await asking.close()
            await asyncio.sleep(address.follow_every_s)


def _name(host: str, port: int) -> str:
    return f"{host}:{port}"


async def _ask(
    address: Address, host: str, port: int, shard: str
) -> tuple[EngineConnection, tuple[str, int]]:
    """Connect to a Sentinel or to a server of the cluster, and return the connection and what `_master` says.

    A Sentinel that wants a password gets that of the engine. One that wants none would refuse it.
    """
    if address.kind == "sentinel":
        address = replace(address, database=0)
        try:
            return await _asked(replace(address, user="", password=""), host, port, shard)
        except LoginError as error:
            if not address.password:
                raise LoginError("NOAUTH", f"the Sentinel {host}:{port} wants a password") from error
    return await _asked(address, host, port, shard)


async def _asked(
    address: Address, host: str, port: int, shard: str
) -> tuple[EngineConnection, tuple[str, int]]:
    connection = await _connect(address, host, port)
    try:
        return connection, await _master(connection, address, host, shard)
    except BaseException:
        await connection.close()
        raise


async def _master(asked: EngineConnection, address: Address, host: str, shard: str) -> tuple[str, int]:
    """Ask over an open connection to `host`: the master as a Sentinel knows it, or the one of a shard in a cluster."""
    is_sentinel = address.kind == "sentinel"
    question = (
        ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service) if is_sentinel else ("CLUSTER", "SLOTS")
    )
    (found,) = await asked.run([question], within_s=CONNECT_WITHIN_S)
    if isinstance(found, RefusedError):
        raise found
    if is_sentinel:
        if found is None:
            raise LostError(f"knows no master {address.service}")
        return found[0].decode(), int(found[1])
    slot = slot_of(shard)
    for first, last, (name, number, *_), *_ in found:
        if first <= slot <= last:
            return (name or b"").decode() or host, number  # no name: the one that was asked
    raise LostError(f"no server has slot {slot}")
