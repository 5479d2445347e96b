"""Asking for tokens: every answer is counted as what it is, and none is made up."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.bench.load.requester import Answered, Order, send_all

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LIMITED = b"HTTP/1.1 429 X\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n"
NO_WAIT = b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n"
DOWN = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[str]:
    """Answer the requests in turn with these bytes, each in two pieces; b"" closes the connection instead."""
    left = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            answer = next(left)
            if not answer:
                break
            for piece in (answer[:20], answer[20:]):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def ask(url: str, *, requests: int, parallel: int) -> Answered:
    """Ask as the process that is measured."""
    order = Order(
        url=url, path="/auth/ws-token", bearers=["a"], requests=requests, parallel=parallel, pid=os.getpid()
    )
    return await send_all(order)


async def test_each_answer_counts_as_what_it_is() -> None:
    """A 429 that names no time to wait is none that a client can obey, and so is a refusal."""
    async with answering(OK, LIMITED, NO_WAIT, DOWN, OK) as url:
        asked = await ask(url, requests=5, parallel=1)
    assert (asked.ok, asked.limited, asked.refused, asked.unanswered) == (2, 1, 2, 0)


async def test_a_connection_that_is_closed_leaves_its_request_unanswered() -> None:
    """Neither asked again nor forgotten; what the others ask is answered."""
    async with answering(OK, b"", OK, OK) as url:
        asked = await ask(url, requests=4, parallel=2)
    assert (asked.ok, asked.unanswered) == (3, 1)


async def test_a_server_that_is_not_there_answers_no_request() -> None:
    """Every request is unanswered, and the run ends."""
    async with answering() as url:
        pass
    asked = await ask(url, requests=3, parallel=3)
    assert (asked.ok, asked.unanswered) == (0, 3)
