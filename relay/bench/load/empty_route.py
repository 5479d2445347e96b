"""The yardstick of `relay bench issue` and `publish`: a route that does nothing, on the HTTP server of the relay.

`python -m relay.bench.load.empty_route` answers POST / with an empty JSON object: Starlette on uvicorn, with the
relay's settings, bounds and security headers.

    out  {"port": p}        it serves until standard input ends
"""

import asyncio
import contextlib
import sys

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.bench.load.orders import say
from relay.net.sockets import bind, bound_port
from relay.web.answers import json_answer
from relay.web.uvicorn_runner import HttpServer


async def _nothing(_request: Request) -> Response:
    return json_answer(200, {})


async def run() -> None:
    """Serve until standard input ends."""
    sock = bind("127.0.0.1:0", setting="the yardstick")
    server = HttpServer(Starlette(routes=[Route("/", _nothing, methods=["POST"])]), sock)
    serving = asyncio.create_task(server.run())
    await server.started()
    say(port=bound_port(sock))
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.stop()
    await serving


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        uvloop.run(run())
