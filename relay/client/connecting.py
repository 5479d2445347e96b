"""One attempt to open a stream: token, handshake, and what a refusal means for the next attempt.

Unlike a browser's script, a Python program sees why an upgrade was refused: 401 wants another token, 429 and
503 want patience, and everything else from 400 on would be the same next time.

Two things about the websockets package matter here. Its `connect` follows redirects and sends the
subprotocols along, and the token with them, so a redirect is refused. And at DEBUG it logs the handshake's
headers, so it gets a logger that can't be turned up.
"""

import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Origin, Subprotocol

from relay.client.answers import read_problem
from relay.client.errors import HandshakeError
from relay.client.issuer import ScopedToken
from relay.core.errors import ConfigurationError

PROTOCOL = Subprotocol("relay.v1")

MAX_FRAME_BYTES = 1 << 20
"""Longest frame from the relay: a publication has 64 KiB, the ack of 256 channels about 50."""

CLOSE_TIMEOUT_S = 2.0
"""How long our own close waits for the other side's, as Ctrl-C may take two seconds in all."""

TokenSource = str | ScopedToken | Callable[[], Awaitable[str | ScopedToken]]
"""A token for the one connection that it opens, or an asynchronous function asked for one an attempt."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """An attempt failed and another may work. `told_s` is the relay's own wish, in seconds."""

    reason: str
    status: int | None = None
    told_s: float | None = None


class _Direct(connect):
    """`connect` that takes a redirect for what it is here: a refusal."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("relay.client.wire")
    if not logger.filters:  # once a process; a level alone could be changed from outside
        logger.setLevel(logging.INFO)
        logger.addFilter(lambda record: record.levelno > logging.DEBUG)
    return logger


async def take_token(source: TokenSource) -> str:
    """Return a token's text, asking for one where `source` is a function.

    Raises:
        ConfigurationError: if it is no token; the sentence doesn't repeat it.
        TokenError: whatever `fetch_token` in the function raised.
    """
    token = source if isinstance(source, str | ScopedToken) else await source()
    text = token.token if isinstance(token, ScopedToken) else token
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise ConfigurationError(
            "That is not a scoped token: it has three parts of letters, digits, - and _."
        )
    return text


async def open_stream(
    url: str, token: str, *, origin: str | None, tls: ssl.SSLContext | None, timeout_s: float
) -> ClientConnection | Retry:
    """Open one connection, or return why it failed if another attempt may work.

    Raises:
        HandshakeError: if no other attempt would work.
    """
    options: dict[str, Any] = {} if tls is None else {"ssl": tls}
    try:
        connection = await _Direct(
            url,
            subprotocols=[PROTOCOL, Subprotocol(f"bearer.{token}")],
            origin=None if origin is None else Origin(origin),
            compression=None,  # the relay's frames are the same bytes for everybody
            proxy=None,  # the environment must not decide who gets to see the token
            open_timeout=timeout_s,
            ping_interval=None,  # the relay's heartbeats tell a dead link, without frames that count
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            logger=_quiet_logger(),
            **options,
        )
    except InvalidStatus as error:
        return _refused(error)
    except (InvalidHandshake, OSError, EOFError) as error:  # TimeoutError is an OSError
        return Retry(reason=str(error) or type(error).__name__)
    if connection.subprotocol != PROTOCOL:
        connection.transport.abort()
        raise HandshakeError(
            "unexpected_answer", f"What answers at {url} doesn't speak {PROTOCOL}.", status=101
        )
    return connection


def _refused(error: InvalidStatus) -> Retry:
    response = error.response
    problem = read_problem(response.status_code, bytes(response.body), response.headers.get("Retry-After"))
    if response.status_code == 401 or problem.retryable:
        return Retry(reason=problem.message, status=response.status_code, told_s=problem.retry_after_s)
    raise HandshakeError(
        problem.code, f"The stream refused the connection: {problem.message}", status=response.status_code
    ) from None
