"""GET /v1/publishers: who may publish what, and what each publisher did since the start.

Counts and no rates: whoever asks twice has them exactly, and nothing is measured for those who don't.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from relay.ops.operators import Done, Handler
from relay.web.answers import json_answer


def publishers_handler(
    rows: Callable[[], Sequence[Mapping[str, Any]]], clock: Callable[[], float]
) -> Handler:
    """Return the route's handler. `clock` gives Unix seconds."""

    async def serve(_request: Request, _operator: str) -> Done:
        return Done(response=json_answer(200, {"at": clock(), "publishers": rows()}))

    return serve
