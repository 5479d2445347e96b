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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Refused(NamedTuple):
    """There is no connection: the HTTP answer's status (None without one) and what `read_problem` made of it."""

    status: int | None
    code: str
    message: str
    is_retryable: bool
    retry_after_s: float | None


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
    """Open one subscriber's connection, or return why it failed if another attempt may work.

    Raises:
        HandshakeError: if no other attempt would work.
    """
    opened = await open_socket(
        url, protocols=(PROTOCOL, f"bearer.{token}"), origin=origin, tls=tls, timeout_s=timeout_s
    )
    if isinstance(opened, Refused):
        if opened.status == 401 or opened.is_retryable:
            return Retry(reason=opened.message, status=opened.status, told_s=opened.retry_after_s)
        raise HandshakeError(
            opened.code, f"The stream refused the connection: {opened.message}", status=opened.status
        )
    if opened.subprotocol != PROTOCOL:
        opened.transport.abort()
        raise HandshakeError(
            "unexpected_answer", f"What answers at {url} doesn't speak {PROTOCOL}.", status=101
        )
    return opened


async def open_socket(
    url: str,
    *,
    protocols: Sequence[str] = (),
    bearer: str = "",
    origin: str | None = None,
    tls: ssl.SSLContext | None,
    timeout_s: float,
    ping_s: float | None = None,
) -> ClientConnection | Refused:
    """Open one connection, with a token among the `protocols` or a key as `bearer`; or return why it failed.

    `ping_s` is the time between pings; a subscriber needs none: the relay's heartbeats tell a dead link, without frames
    that count.
    """
    options: dict[str, Any] = {} if tls is None else {"ssl": tls}
    try:
        return await _Direct(
            url,
            subprotocols=[Subprotocol(name) for name in protocols] or None,
            additional_headers={"Authorization": f"Bearer {bearer}"} if bearer else None,
            origin=None if origin is None else Origin(origin),
            compression=None,  # the relay's frames are the same bytes for everybody
            proxy=None,  # the environment must not decide who gets to see the credential
            open_timeout=timeout_s,
            ping_interval=ping_s,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            logger=_quiet_logger(),
            **options,
        )
    except InvalidStatus as error:
        response = error.response
        status = response.status_code
        problem = read_problem(status, bytes(response.body), response.headers.get("Retry-After"))
        return Refused(status, problem.code, problem.message, problem.retryable, problem.retry_after_s)
    except (InvalidHandshake, OSError, EOFError) as error:  # TimeoutError is an OSError
        return Refused(None, "unreachable", str(error) or type(error).__name__, True, None)
