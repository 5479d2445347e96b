"""GET /v1/subscribers: how many watch a channel, so that a publisher can stop computing what nobody does.

`?channel=prices.BTC-USD`, given once for each channel; its own channels only. Counted are this node's subscribers,
by name and by pattern, also of channels that have no value yet. It is a number of the moment: whoever stops publishing
should ask again every few seconds, and say `alive` meanwhile if the value stands.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.patterns import check_channel
from relay.ingest.service import Ingest
from relay.web.answers import json_answer

MAX_CHANNELS = 100
"""Named in one request: 7 KB of a request line at most, which is below what servers and proxies take."""


def count_subscribers(
    request: Request, ingest: Ingest, publisher: str, *, watchers: Callable[[str], int]
) -> Response | Refusal:
    """Answer one request of a publisher.

    Raises:
        MalformedError: if the query is not as documented.
    """
    query = request.query_params
    channels = query.getlist("channel")
    if query.keys() != {"channel"} or len(channels) > MAX_CHANNELS:
        raise MalformedError(
            f"Ask for ?channel=prices.BTC-USD, and &channel=… for more, {MAX_CHANNELS} at most.",
            reason=Reason.REQUEST_MALFORMED,
        )
    for channel in channels:
        check_channel(channel)
        if not ingest.may_publish(publisher, channel):
            return Refusal(
                reason=Reason.CHANNEL_FORBIDDEN, detail=f"The key {publisher} may not publish to {channel}."
            )
    return json_answer(200, {"subscribers": {channel: watchers(channel) for channel in channels}})
