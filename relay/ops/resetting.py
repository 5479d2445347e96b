"""POST /v1/channels/reset: let a channel's publisher begin its versions anew.

A publisher whose clock was an hour ahead has given its channel a version that nobody reaches for an hour. It can
send a higher `version_epoch`; where it can't, an operator takes the channel's memory of versions and keys away.
Numbers and values stay, so that subscribers notice nothing.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.core.patterns import check_channel
from relay.ops.operators import Done, Handler
from relay.web.answers import json_answer
from relay.web.bodies import read_json_object

MAX_BODY_BYTES = 512
"""A channel has 64 bytes at most."""


def reset_handler(reset: Callable[[str], Awaitable[bool]]) -> Handler:
    """Return the route's handler. `reset` tells whether the channel was known."""

    async def serve(request: Request, _operator: str) -> Done:
        body = await read_json_object(request, max_bytes=MAX_BODY_BYTES)
        channel = body.get("channel")
        if body.keys() != {"channel"} or not isinstance(channel, str):
            raise MalformedError('Send {"channel": the channel to reset}.')
        answer = {"channel": check_channel(channel), "reset": await reset(channel)}
        return Done(response=json_answer(200, answer), noted=answer)

    return serve
