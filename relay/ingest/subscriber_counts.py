"""GET /v1/subscribers: the number of subscribers of a channel. A publisher can skip values that nobody receives.

`?channel=prices.BTC-USD`, once for each channel, and only for the publisher's own channels. The number covers this
node's subscribers, by name and by pattern, also on channels without a value. It changes at any time: a publisher that
has stopped should ask again every few seconds, and send `alive` while the last value is still right.
"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.patterns import check_channel
from relay.ingest.service import Ingest
from relay.web.answers import json_answer
from relay.web.channel_query import channel_query

MAX_CHANNELS = 100
"""Most channels in one request: the request line then has 7 KB at most, which servers and proxies accept."""


def count_subscribers(
    request: Request, ingest: Ingest, publisher: str, *, subscriber_count: Callable[[str], int]
) -> Response | Refusal:
    """Answer one request.

    Raises:
        MalformedError: if the query is not of the documented form.
    """
    query = channel_query(request)
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
    return json_answer(200, {"subscribers": {channel: subscriber_count(channel) for channel in channels}})
