"""Switches that take one control away from nodes, so that a fault breaks the promise that it keeps."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from relay.engine import scripts
from tests.support.engine_invariants import Nodes

Remove = Callable[[Nodes], None]


def without(nodes: Nodes, name: str, text: str, instead: str) -> None:
    """Change a part of a script, for these nodes."""
    real = scripts.script(name)
    assert text in real.text, f"{name}.lua has no {text!r}"
    changed = real.text.replace(text, instead)
    sha = hashlib.sha1(changed.encode(), usedforsecurity=False).hexdigest()
    nodes.scripts[name] = scripts.Script(name, changed, sha)
    for line in lines(nodes):
        line.call = _changed_call(line.call, nodes)


def _changed_call(call: Callable[..., Any], nodes: Nodes) -> Callable[..., Any]:
    return lambda called, *arguments: call(nodes.script(called.name), *arguments)


def parts_with_a_log(nodes: Nodes) -> list[Any]:
    """Return what reads a log, and has a line to the engine."""
    return [*nodes.states, *(shard for broker in nodes.brokers for shard in broker.shards)]


def lines(nodes: Nodes) -> list[Any]:
    """Return all lines to the engine."""
    claims = [shard for state in nodes.states for shard in state.claims.shards]
    return [part._line for part in (*parts_with_a_log(nodes), *claims, *nodes.families)]


def readers(nodes: Nodes) -> list[Any]:
    """Return the readers of both logs of both nodes."""
    return [part._reader for part in parts_with_a_log(nodes)]


def no_life(nodes: Nodes) -> None:
    """The epoch is not bound to the life of the server."""
    for name in ("publish", "load", "claim", "control", "revoke"):
        without(nodes, name, "known[1] == replid and", "known[1] and")


def no_fence(nodes: Nodes) -> None:
    """A token from before the life of the claims is like any other."""
    without(nodes, "claim", "<= since + 2", "< 0")


def no_begin_of_life_at_the_right_time(nodes: Nodes) -> None:
    """A life of the claims begins whatever the clocks say."""
    without(nodes, "claim", "if not differs then\n  local _", "if true then\n  local _")


def no_begin_of_log_ins_at_the_right_time(nodes: Nodes) -> None:
    """The life of the log-ins counts from when it began, whatever the clocks said."""
    without(nodes, "families", "HSET', KEYS[1], 'unsure', '1'", "HSET', KEYS[1], 'unsure', ''")


def no_day_for_used_tokens(nodes: Nodes) -> None:
    """Used tokens are kept by the engine's clock, for as long as they are good."""
    without(nodes, "claim", "86400000", "152000")


def no_nonce(nodes: Nodes) -> None:
    """A claim that is sent again is not recognized."""
    without(nodes, "claim", "return redis.call('HGET', of(minute), jti)", "return ''")


def no_batch_numbers(nodes: Nodes) -> None:
    """A batch that is sent again is published again."""
    without(nodes, "publish", "if tonumber(number) == batch then return reply end", "")


def no_names_of_leases(nodes: Nodes) -> None:
    """A result that is sent again is not recognized."""
    without(nodes, "families", "row.done == lease and", "false and")


def no_comparison(nodes: Nodes) -> None:
    """A read that ends empty is not compared with the newest entry."""

    async def nothing(_connection: Any) -> bool:
        return False

    for reader in readers(nodes):
        reader._compare = nothing


def no_write_in_the_comparison(nodes: Nodes) -> None:
    """A reader does not ask whether the server may write.

    It waits for long: after a connection that broke it would write, to begin again.
    """
    for reader in readers(nodes):
        reader._ask = _without_writes


async def _without_writes(connection: Any, *commands: Any) -> list[Any]:
    replies = await _without_limit(connection, *(one for one in commands if one[0] != "HDEL"))
    return replies + [0] * (len(commands) - len(replies))


def no_following(nodes: Nodes) -> None:
    """A connection to a master that a Sentinel has named goes on for as long as that server does.

    It waits for long: after one that broke because the machine is busy, the next one is with the new master, and the
    others follow it.
    """
    for one in (*lines(nodes), *readers(nodes)):
        one._address = replace(one._address, follow_every_s=3600)
    for line in lines(nodes):
        line._answer_within_s = 3600
    no_time_limit(nodes)
    for task in asyncio.all_tasks():
        if task.get_name() == "relay-engine-follow":
            task.cancel()  # so the connections of now are opened again


def no_write_back(nodes: Nodes) -> None:
    """A node does not write back the revocations that it knows."""
    for state in nodes.states:
        state._reader._begin = _without_writing_back(state)


def _without_writing_back(state: Any) -> Callable[[], Any]:
    async def begin() -> Any:
        known, state._revoked = state._revoked, {}
        position = await state._begin()
        state._revoked = known | state._revoked
        return position

    return begin


def no_results_written_back(nodes: Nodes) -> None:
    """A node does not write back the results of refreshes that it knows."""

    async def nothing() -> None:
        return

    stores: list[Any] = [*nodes.families]
    for store in stores:
        store._restore = nothing


def no_reading_of_all(nodes: Nodes) -> None:
    """A reader that has missed entries goes on with the next one."""
    for part in parts_with_a_log(nodes):
        part._reader._begin = _going_on(part)


def _going_on(part: Any) -> Callable[[], Any]:
    async def begin() -> Any:
        generation, number = await part._line.read("HMGET", part._reader._life_key, "g", "b")
        return int(generation), int(number)

    return begin


def no_time_limit(nodes: Nodes) -> None:
    """A reader waits for as long as its connection is open."""
    for reader in readers(nodes):
        reader._ask = _without_limit


async def _without_limit(connection: Any, *commands: Any) -> list[Any]:
    replies: list[Any] = await connection.run(commands, within_s=3600)
    return replies


def no_restart_of_tasks(nodes: Nodes) -> None:
    """A task that fails stays as it is."""

    async def forever(_error: Exception) -> None:
        await asyncio.Event().wait()

    for reader in readers(nodes):
        reader.task._recover = forever


def nothing(_nodes: Nodes) -> None:
    """Remove nothing: the fault itself is the missing setting of the server."""
