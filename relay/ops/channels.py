"""GET /v1/channels: the channels that have a value, with their position and the age of the value.

The list comes in pages, by name. `next` is the last name of a full page. There is no rate: `seq` counts each value, so
two requests give the exact rate.
"""

import heapq
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from relay.core.channels import Channel
from relay.core.hub import Hub
from relay.core.patterns import check_channel, check_pattern, covers
from relay.ops.operators import Handler, HandlerResult
from relay.ops.paging import check_names, read_limit
from relay.stream.hub_clock import steady_ms
from relay.web.answers import json_answer
from relay.web.channel_query import channel_query

EndpointOf = Callable[[str], str | None]


def channels_handler(hub: Hub, endpoint_of: EndpointOf) -> Handler:
    """Return the route's handler. `endpoint_of` returns the endpoint of a channel, if it has one."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        query = channel_query(request)
        check_names(query, ("limit", "after", "match"))
        limit, after, pattern = read_limit(query), query.get("after", ""), query.get("match", "")
        if after:
            check_channel(after)
        if pattern:
            check_pattern(pattern)
        matching = [channel for channel in hub.channels() if not pattern or covers(pattern, channel.name)]
        following = (channel for channel in matching if channel.name > after)
        now_ms = steady_ms()
        rows = [
            _row(channel, endpoint_of, now_ms)
            for channel in heapq.nsmallest(limit, following, key=lambda channel: channel.name)
        ]
        answer = {
            "total": len(matching),
            "channels": rows,
            "next": rows[-1]["channel"] if len(rows) == limit else None,
        }
        return HandlerResult(response=json_answer(200, answer), recorded={"rows": len(rows)})

    return serve


def _row(channel: Channel, endpoint_of: EndpointOf, now_ms: int) -> Mapping[str, Any]:
    assert channel.last is not None, "Hub.channels returns channels with a value"
    return {
        "channel": channel.name,
        "endpoint": endpoint_of(channel.name),
        "mode": channel.options.mode.value,
        "epoch": channel.last.epoch,
        "seq": channel.last.seq,
        "last_at": channel.last.ts / 1000,
        "age_s": (now_ms - channel.valued_ms) / 1000,
        "stale": channel.stale,
        "subscribers": channel.subscriber_count,
    }
