"""The checks of the engine before the relay starts: it must be one on which the promises of this room hold."""

import re
import ssl
from collections.abc import Sequence

from relay.core.errors import ConfigurationError
from relay.engine.address import Address
from relay.engine.connection import (
    EngineConnection,
    EngineError,
    LoginError,
    LostError,
    RefusedError,
    connections_to_all,
    open_connection,
)
from relay.engine.eviction import NO_EVICTION, eviction_risk, info_fields, policy_of
from relay.engine.options import EngineOptions
from relay.engine.scripts import script

REDIS_AT_LEAST = 7
VALKEY_AT_LEAST = 8
_WITHIN_S = 2.0
_REPLID = re.compile(r"[0-9a-f]{40}")


async def probe(options: EngineOptions) -> None:
    """Check that the engine can be used.

    Raises:
        ConfigurationError: if not, in one sentence with what to do.
    """
    address = options.address
    name = f"engine.url: {address}"
    _check_ca_file(address)
    try:
        async with connections_to_all(address, options.on_each_server) as servers:
            for shard, first in servers.items():
                replid = await _check_server(options, shard, first)
                second = await open_connection(address, shard)
                try:
                    if await _check_server(options, shard, second) != replid:
                        raise ConfigurationError(
                            f"engine.url: two connections to {first.server} reached two servers, so there is a proxy "
                            "or a cluster in between. Set it to one server, or to the Sentinels of one."
                        )
                finally:
                    await second.close()
    except LoginError as error:
        raise ConfigurationError(
            f"{name} refuses the log-in ({error}). Correct the user in engine.url, or the password there or in "
            "engine.password_file."
        ) from None
    except EngineError as error:
        what, advice = _explained(str(error), address)
        raise ConfigurationError(f"{name} {what} ({str(error).rstrip(' .')}). {advice}") from None


def _explained(error: str, address: Address) -> tuple[str, str]:
    """Return what an error at the first connection says of the server, and what to do."""
    if "DB index is out of range" in error:
        return (
            f"has no database {address.database}",
            "Correct its number in engine.url, or raise databases there.",
        )
    if re.search("unknown command ['`]SENTINEL", error):
        return "is no Sentinel", "Name the Sentinels in engine.url, or use redis://host:port for this server."
    if "cluster support disabled" in error:
        return "is no cluster", "Use redis://host:port for this server."
    if "Protocol error" in error:
        return "is no Redis or Valkey", "Correct the port in engine.url."
    if "did not answer" in error and address.tls:
        return "does not answer", "Start the engine with TLS on this port, or use redis:// in engine.url."
    if "onnection closed by server" in error and not address.tls:
        return "closes the connection", "If it wants TLS on this port, use rediss:// in engine.url."
    return "does not answer", "Start the engine, or correct engine.url."


def _check_ca_file(address: Address) -> None:
    if not address.ca_file:
        return
    try:
        ssl.create_default_context(cafile=address.ca_file)
    except OSError as error:
        raise ConfigurationError(
            f"engine.url: ca_file {address.ca_file} can't be read ({error.strerror or error}). Set it to a PEM file "
            "with the certificate authority of the engine."
        ) from None


async def _check_server(options: EngineOptions, shard: str, connection: EngineConnection) -> str:
    """Check version, role, replication id and eviction. Return the replication id."""
    address = options.address
    name = f"engine.url: {address}"
    if address.kind == "cluster":
        name += f", server {connection.server}"
    probing = script("probe")
    key = options.key(shard, "probe")
    try:
        reply, memory = await connection.run(
            [("EVAL", probing.text, 1, key), ("INFO", "memory")], within_s=_WITHIN_S
        )
    except LoginError:
        raise ConfigurationError(
            f"{name} wants a password. Put it into engine.password_file, or into engine.url."
        ) from None
    except LostError as error:
        if "READONLY" in str(error):
            raise _replica(name) from None
        if address.kind != "cluster" and str(error).startswith(("MOVED", "CLUSTERDOWN")):
            raise _cluster(name) from None
        raise
    if refused := next((one for one in (reply, memory) if isinstance(one, RefusedError)), None):
        raise _refused(name, refused, options.prefix)
    told = [str(part, "ascii") for part in reply]
    if told[0] == "NOPERM":
        raise _forbidden(name, told[1:])
    replid, _, role, valkey, redis, mode = told
    kind, version, least = ("Valkey", valkey, VALKEY_AT_LEAST) if valkey else ("Redis", redis, REDIS_AT_LEAST)
    if int(version.partition(".")[0] or 0) < least:
        raise ConfigurationError(
            f"{name} is {kind} {version or 'of an unknown version'}, which is too old. Use Redis {REDIS_AT_LEAST} or "
            f"Valkey {VALKEY_AT_LEAST}, or a later version."
        )
    if mode == "cluster" and address.kind != "cluster":
        raise _cluster(name)
    if role != "master":
        raise _replica(name)
    if not _REPLID.fullmatch(replid):
        raise ConfigurationError(
            f"{name} tells scripts no replication id, so a loss of data would not be noticed. This service can't be "
            "the engine: use a Redis or Valkey server."
        )
    _check_policy(name, memory)
    return replid


def _check_policy(name: str, memory: bytes) -> None:
    policy = policy_of(info_fields(memory))
    if policy != NO_EVICTION:
        raise ConfigurationError(f"{name} {eviction_risk(policy)}")


def _refused(name: str, error: RefusedError, prefix: str) -> ConfigurationError:
    if "READONLY" in str(error):
        return _replica(name)
    if error.code == "OOM":
        return ConfigurationError(
            f"{name} has no memory left, so it stores nothing. Raise maxmemory there, or remove other data."
        )
    if error.code == "NOPERM" and " keys " in str(error):
        return ConfigurationError(
            f"{name} forbids the ACL user the keys of the relay. Give it those of engine.prefix there: "
            f"ACL SETUSER <user> ~{prefix}:*, and ACL SAVE."
        )
    if error.code == "NOPERM":
        return _forbidden(name, ["eval" if "'eval'" in str(error) else "info"])
    return ConfigurationError(f"{name} can't be the engine: it refuses a script ({error}).")


def _forbidden(name: str, commands: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        f"{name} forbids the ACL user {', '.join(commands)}, which the relay needs. Allow it there: ACL SETUSER <user> "
        f"{' '.join(f'+{one}' for one in commands)}, and ACL SAVE. The engine's reference has the whole list."
    )


def _cluster(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is a server of a cluster. Use redis+cluster://host:port,host:port with some of its servers."
    )


def _replica(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is a replica, which can't be written to. Set it to the master, or to the Sentinels."
    )
