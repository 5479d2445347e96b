"""The workers of one supervisor ask each other, so that any of them answers an operator for all of them.

Each worker listens on a Unix socket in the supervisor's folder, which only its user can open. `peer.3` is the one of
the process that writes the audit log's third chain. A request is one line, the path with its query; the answer is JSON.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.ops.operators import Handler

ANSWERED_WITHIN_S = 1.0
"""Seconds until the answer is given without a worker, which is then named."""
_MAX_REQUEST = 64 << 10
_BACKLOG = 128

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The answers of the other workers by their numbers, and the numbers of those that did not answer in time."""

    answers: Mapping[int, Any]
    silent: list[int]


class Peers:
    """The other workers. `number` is the one of this process."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self.number = number
        self._handlers: dict[str, Callable[[str], Awaitable[bytes]]] = {}

    def answer(self, path: str, handler: Callable[[str], Awaitable[bytes]]) -> None:
        """Give others what `handler` makes of a query, when they ask for a path."""
        self._handlers[path] = handler

    async def serve(self) -> None:
        """Answer the others until cancelled."""
        own = self._folder / f"peer.{self.number}"
        own.unlink(missing_ok=True)  # of a process that had this number and was killed
        server = await asyncio.start_unix_server(self._accept, own, limit=_MAX_REQUEST, backlog=_BACKLOG)
        try:
            await server.serve_forever()
        finally:
            own.unlink(missing_ok=True)

    async def ask(self, path: str, query: str) -> tuple[list[Any], list[int]]:
        """Return the answers of the others, and the numbers of those that did not answer."""
        asked = await self.ask_all(path, query)
        return list(asked.answers.values()), asked.silent

    async def ask_all(self, path: str, query: str) -> Asked:
        """Ask all others, at the same time."""
        numbers = sorted(int(one.suffix[1:]) for one in self._folder.glob("peer.*"))
        others = [number for number in numbers if number != self.number]
        found = await asyncio.gather(*(self._ask_one(number, f"{path}?{query}") for number in others))
        answers = dict(zip(others, found, strict=True))
        return Asked(
            answers={number: answer for number, answer in answers.items() if answer not in (None, b"")},
            silent=[number for number, answer in answers.items() if answer == b""],
        )

    async def _ask_one(self, number: int, request: str) -> Any:
        """Return the answer of a worker; None if it has ended, and nothing (bytes) if it does not answer."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                reader, writer = await asyncio.open_unix_connection(self._folder / f"peer.{number}")
                try:
                    writer.write(request.encode() + b"\n")
                    body = await reader.read()
                finally:
                    writer.close()
            return json.loads(body) if body else b""
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except (TimeoutError, OSError, ValueError):
            return b""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                path, _, query = (await reader.readline()).decode().rstrip("\n").partition("?")
                if handler := self._handlers.get(path):
                    writer.write(await handler(query))
                    await writer.drain()
        except (TimeoutError, OSError, ValueError, MalformedError) as error:
            log.warning("another worker got no answer", error=type(error).__name__)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def answer_here(handler: Handler, path: str, query: str) -> bytes:
    """Return the body of an operators' handler for another worker, which has checked its operator."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [],
        "state": {},
    }
    result = await handler(Request(scope), "")
    return bytes(result.response.body)
