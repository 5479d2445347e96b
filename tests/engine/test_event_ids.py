"""The id of an event stream on another node than the one that gave it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable

from relay.core.channels import ChannelOptions
from relay.core.messages import Mode
from relay.core.publications import parse_draft
from relay.core.subscriptions import SubscribeRequest
from relay.engine.broker import EngineBroker, KeptHistory
from relay.engine.options import EngineOptions
from relay.stream.fanout import Fanout
from relay.stream.sse import encode
from tests.support.engines import EngineServer, until
from tests.support.hub import Line

TRADES = ChannelOptions(mode=Mode.STREAM, history_messages=500, history_ms=300_000)
CHANNELS = ["trades.A", "trades.B", "trades.C"]


class Node:
    """A broker and a hub."""

    def __init__(self, options: EngineOptions) -> None:
        self.broker = EngineBroker(
            options, max_channels=100, history_of=lambda _: KeptHistory(messages=500, seconds=300)
        )
        self.fanout = Fanout(lambda _name: TRADES)

    async def publish(self, channel: str, number: int) -> None:
        """Publish one number."""
        draft = parse_draft(json.dumps({"channel": channel, "data": number}).encode())
        await self.broker.publish(draft, ts=1000)

    def follow(self, last_id: str = "") -> tuple[Line, list[bool]]:
        """Subscribe to all channels, and tell which of them are resumed."""
        line = Line(encode=encode)
        point = self.fanout.hub.positions.resume(last_id)
        requests = [SubscribeRequest(name=name, after=point) for name in CHANNELS]
        recovered = [self.fanout.hub.acked_state(one).recovered for one in requests]
        self.fanout.hub.subscribe(self.fanout.hub.join(line, encode), requests)
        return line, recovered


@contextlib.asynccontextmanager
async def node_on(options: EngineOptions) -> AsyncIterator[Node]:
    """Run one node."""
    node = Node(options)
    await node.fanout.connect(node.broker)
    yield node
    await node.broker.aclose()


def came(writes: Iterable[bytes]) -> tuple[dict[str, list[int]], str]:
    """Return the numbers that came of each channel, and the last id."""
    found: dict[str, list[int]] = {name: [] for name in CHANNELS}
    last_id = ""
    for line in b"".join(writes).decode().splitlines():
        field, _, value = line.partition(": ")
        if field == "id":
            last_id = value
        elif field == "data":
            frame = json.loads(value)
            found[frame["channel"]].append(frame["data"])
    return found, last_id


async def test_another_node_goes_on_without_a_loss(own_engine: EngineServer) -> None:
    """Wherever the line was cut; what comes again was published in the same moment, and has the same number.

    A node that started after the cut sends snapshots, and says that something may be missing.
    """
    options = own_engine.options()
    async with node_on(options) as one, node_on(options) as other:
        line, _ = one.follow()
        other.follow()
        for burst in range(20):
            await asyncio.gather(
                *((one, other)[n % 2].publish(CHANNELS[n % 3], burst * 9 + n) for n in range(9))
            )
        await until(lambda: sum(map(len, came(line.writes)[0].values())) == 180)
        whole, _ = came(line.writes)
        data = b"".join(line.writes)
        for cut in range(0, len(data), 997):
            got, last_id = came([data[: data.rindex(b"\n\n", 0, cut) + 2 if b"\n\n" in data[:cut] else 0]])
            if last_id.count("-") < 3:
                continue  # from before the node has read anything from the log
            rest, recovered = other.follow(last_id)
            assert recovered == [True] * 3
            await until(lambda: not other.fanout.hub._catching_up)
            for name in CHANNELS:
                later = came(rest.writes)[0][name]
                assert sorted({*got[name], *later}) == sorted(whole[name]), (name, cut)
                assert len({*got[name]} & {*later}) <= 9
        async with node_on(options) as late:
            assert late.follow(last_id)[1] == [False] * 3
            await one.publish("trades.A", 1000)
            await until(lambda: came(line.writes)[0]["trades.A"][-1] == 1000)
            _, newest = came(line.writes)
            await until(lambda: late.follow(newest)[1] == [True] * 3)  # as far as it knows, and no further
