"""What operators change of a channel: POST /v1/channels/reset and DELETE /v1/channels/NAME.

Reset: forget a channel's versions, so that its publisher can start again with lower ones.

A publisher whose clock was an hour ahead has sent a version that its right clock reaches an hour later. It can send a
higher `version_epoch`. If it can't, an operator resets the channel: its version and its idempotency keys are forgotten.
Sequence numbers and values stay, so subscribers notice nothing.

Delete: forget the channel with its value and history. Its subscribers are told that it is stale. If a publisher sends
a value again, the channel begins with a snapshot and higher numbers.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.core.patterns import check_channel
from relay.ops.operators import Handler, HandlerResult
from relay.web.answers import json_answer
from relay.web.bodies import read_json_object

MAX_BODY_BYTES = 512
"""A channel's name has at most 64 bytes."""


def reset_handler(reset: Callable[[str], Awaitable[bool]]) -> Handler:
    """Return the route's handler. `reset` returns whether the channel was known."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        body = await read_json_object(request, max_bytes=MAX_BODY_BYTES)
        channel = body.get("channel")
        if body.keys() != {"channel"} or not isinstance(channel, str):
            raise MalformedError('Send {"channel": the channel to reset}.')
        answer = {"channel": check_channel(channel), "reset": await reset(channel)}
        return HandlerResult(response=json_answer(200, answer), recorded=answer)

    return serve


def remove_handler(remove: Callable[[str], Awaitable[bool]]) -> Handler:
    """Return the route's handler. `remove` returns whether there was a channel."""

    async def serve(request: Request, _operator: str) -> HandlerResult:
        channel = check_channel(request.path_params["channel"])
        answer = {"channel": channel, "removed": await remove(channel)}
        return HandlerResult(response=json_answer(200, answer), recorded=answer)

    return serve
