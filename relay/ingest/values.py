"""The newest values of channels, for their publisher and for operators who may read.

- `GET /v1/channels/NAME/value`: one channel.
- `GET /v1/values?channel=NAME&channel=PATTERN`: the channels that have a value, by name, for `relay listen`.

A publisher's key reads only the channels to which it may publish.
"""

import heapq
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from relay.core.channels import Channel
from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.hub import Hub
from relay.core.patterns import check_channel, check_pattern, covers
from relay.core.scope import Scope
from relay.web.channel_query import channel_query
from relay.web.headers import SECURITY_HEADERS

MAX_NAMES = 100
"""Most channels and patterns in one request, as many as `/v1/subscribers` takes."""
MAX_VALUES = 200
"""Most values in one answer. To make it holds the event loop for about a millisecond."""


def one_value(request: Request, hub: Hub, scope: Scope) -> Response | Refusal:
    """Answer a request for one channel. Without a value, `seq` is 0 and there is no `data`.

    Raises:
        MalformedError: if the name is not a channel.
    """
    name = check_channel(request.path_params["channel"])
    if refusal := _outside(scope, [name]):
        return refusal
    found = hub.matching(name)  # at most one: a name without a wildcard matches itself
    return _answer(_value(found[0]) if found else {"channel": name, "epoch": "", "seq": 0, "state": "stale"})


def many_values(request: Request, hub: Hub, scope: Scope) -> Response | Refusal:
    """Answer a request for several channels and patterns. `more` tells that there are more values than are shown.

    Raises:
        MalformedError: if the query is not of the documented form.
    """
    query = channel_query(request)
    names = [check_pattern(name) for name in query.getlist("channel")]
    if query.keys() != {"channel"} or len(names) > MAX_NAMES:
        raise MalformedError(
            f"Ask for ?channel=prices.BTC-USD, and &channel=… for more channels or patterns, {MAX_NAMES} at most.",
            reason=Reason.REQUEST_MALFORMED,
        )
    if refusal := _outside(scope, names):
        return refusal
    found = (one for one in hub.channels() if any(covers(name, one.name) for name in names))
    shown = heapq.nsmallest(MAX_VALUES + 1, found, key=lambda channel: channel.name)
    return _answer(
        {
            "ts": int(time.time() * 1000),
            "values": [_value(channel) for channel in shown[:MAX_VALUES]],
            "more": len(shown) > MAX_VALUES,
        }
    )


def _outside(scope: Scope, names: Sequence[str]) -> Refusal | None:
    for name in names:
        if not scope.allows(name):
            return Refusal(
                reason=Reason.CHANNEL_FORBIDDEN,
                detail=f"The key may not read {name}: it may not publish there.",
            )
    return None


def _value(channel: Channel) -> dict[str, Any]:
    last = channel.last
    assert last is not None, "the hub returns channels with a value"
    return {
        "channel": last.channel,
        "epoch": last.epoch,
        "seq": last.seq,
        "ts": last.ts,
        **({} if last.source_ts is None else {"source_ts": last.source_ts}),
        "state": "stale" if channel.stale else "live",
        "data": msgspec.Raw(last.data),  # byte for byte
    }


def _answer(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers=dict(SECURITY_HEADERS))
