"""One attempt to open a WebSocket: the token, the handshake, and whether another attempt may work after a refusal.

A Python program sees the status of a refused handshake; a browser's script does not. A refusal is final only if its
body is a relay's own error and says so. A relay's 401 asks for another token. Everything else may be a proxy's answer
during a deployment, and is tried again.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.extensions import ClientExtensionFactory
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Origin, Subprotocol

from relay.client.errors import HandshakeError, TokenError
from relay.client.issuer import ScopedToken
from relay.client.responses import read_problem
from relay.core.errors import ConfigurationError, RelayError

PROTOCOL = Subprotocol("relay.v1")

MAX_FRAME_BYTES = 1 << 20
"""Longest accepted frame. A publication has at most 64 KiB, and the ack of 256 channels about 50 KiB."""

CLOSE_TIMEOUT_S = 2.0
"""How long a close waits for the relay's close frame: Ctrl-C may take two seconds in all."""

TokenSource = str | ScopedToken | Callable[[], Awaitable[str | ScopedToken]]
"""A token, which opens one connection; or an asynchronous function that returns a new one for each attempt."""

_DEFLATE = ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
"""The offer for batches, without memory for a context between messages."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """An attempt failed and another may work. `retry_after_s` is the wait that the relay named, in seconds.

    `refuses_token`: the relay refused the token, and another one may work.
    """

    reason: str
    status: int | None = None
    retry_after_s: float | None = None
    refuses_token: bool = False


class HandshakeRefusal(NamedTuple):
    """A failed handshake: the HTTP status (None without a response) and what `read_problem` returned for it."""

    status: int | None
    code: str
    message: str
    is_retryable: bool
    retry_after_s: float | None


class _Direct(connect):
    """`connect` that refuses redirects: it would send the token, which is a subprotocol, to the new address."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _quiet_logger() -> logging.Logger:
    """Return a logger that never logs at DEBUG: websockets logs the handshake's headers there, with the token."""
    logger = logging.getLogger("relay.client.wire")
    if not logger.filters:  # once per process; a level alone could be changed from outside
        logger.setLevel(logging.INFO)
        logger.addFilter(lambda record: record.levelno > logging.DEBUG)
    return logger


async def resolve_token(source: TokenSource) -> str:
    """Return a token's text; call `source` for it if it is a function.

    Raises:
        ConfigurationError: if the text is not a token. The message does not repeat it.
        TokenError: if the function raised it, as `fetch_token` does. It is retryable after any other exception of the
            function: the next call may work, and the subscriber's events have the cause.
    """
    token = source if isinstance(source, str | ScopedToken) else await _call(source)
    text = token.token if isinstance(token, ScopedToken) else token
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise ConfigurationError(
            "The token is not a scoped token: that has three parts of letters, digits, - and _, with dots between."
        )
    return text


async def _call(source: Callable[[], Awaitable[str | ScopedToken]]) -> str | ScopedToken:
    try:
        return await source()
    except RelayError:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        cause = "it was cancelled"
    except Exception as error:  # noqa: BLE001  # the caller's function may raise anything
        cause = f"{type(error).__name__}: {error}"
    raise TokenError("token_function_failed", f"The token function failed: {cause}", retryable=True)


async def open_stream(
    url: str,
    token: str,
    *,
    origin: str | None,
    tls: ssl.SSLContext | None,
    timeout_s: float,
    compress: bool = False,
) -> ClientConnection | Retry:
    """Open a subscriber's connection, or return why it failed if another attempt may work.

    With `compress` it offers what the relay needs for compressed batches; the URL must ask for them too.

    Raises:
        HandshakeError: if another attempt would fail in the same way.
    """
    opened = await open_socket(
        url,
        protocols=(PROTOCOL, f"bearer.{token}"),
        origin=origin,
        tls=tls,
        timeout_s=timeout_s,
        extensions=(_DEFLATE,) if compress else None,
    )
    if isinstance(opened, HandshakeRefusal):
        refuses_token = opened.status == 401 and not opened.is_retryable
        if refuses_token or opened.is_retryable:
            return Retry(
                reason=opened.message,
                status=opened.status,
                retry_after_s=opened.retry_after_s,
                refuses_token=refuses_token,
            )
        raise HandshakeError(
            opened.code, f"The stream refused the connection: {opened.message}", status=opened.status
        )
    if opened.subprotocol != PROTOCOL:
        opened.transport.abort()
        return Retry(reason=f"The server at {url} does not speak {PROTOCOL}.", status=101)
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
    extensions: Sequence[ClientExtensionFactory] | None = None,
) -> ClientConnection | HandshakeRefusal:
    """Open one connection, with a token among the `protocols` or a key as `bearer`; or return why it failed.

    `ping_s` is the time between pings. A subscriber sends none: the relay's heartbeats show a dead link, and pings
    would count as frames.
    """
    options: dict[str, Any] = {} if tls is None else {"ssl": tls}
    try:
        return await _Direct(
            url,
            subprotocols=[Subprotocol(name) for name in protocols] or None,
            additional_headers={"Authorization": f"Bearer {bearer}"} if bearer else None,
            origin=None if origin is None else Origin(origin),
            compression=None,
            extensions=extensions,  # None: no header
            proxy=None,  # the environment must not send the credential elsewhere
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
        return HandshakeRefusal(
            status, problem.code, problem.message, problem.retryable, problem.retry_after_s
        )
    except ConnectionClosed:  # before the handshake was sent
        return HandshakeRefusal(None, "unreachable", "the server ended the connection at once", True, None)
    except (InvalidHandshake, OSError, EOFError) as error:  # TimeoutError is an OSError
        return HandshakeRefusal(None, "unreachable", str(error) or type(error).__name__, True, None)
