"""Publishing over a WebSocket: one connection after the other, and which messages are sent again on the next one.

Messages that were sent and not settled when a connection broke are sent again in their order. The relay may have
accepted some of them, and then gets them twice. On channels of mode `stream` each message has an idempotency key, the
caller's or an automatic one, so the relay drops the second copy. It remembers the newest 1000 keys of a channel, and no
more messages are unacknowledged at once. (A second publisher on the channel uses some of these 1000.) On `latest`
channels it drops a value with the same `version`. Without a version a price may come twice, and an older one shortly
after a newer one; the last value is right.

A relay that was killed remembers neither keys nor values, and has another epoch. Then the last value of each `latest`
channel is sent again. Accepted messages of `stream` channels are lost with the history, and subscribers are told.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Callable
from typing import NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from relay.client.backoff import Backoff
from relay.client.errors import PublishError
from relay.client.handshake import HandshakeRefusal, open_socket
from relay.client.publishing.frames import Problem, Welcome, parse_frame
from relay.client.publishing.ingest_connection import IngestConnection
from relay.client.publishing.last_values import LastValues
from relay.client.publishing.send_queue import HaltedError, SendQueue
from relay.client.reconnect_policy import is_final
from relay.core.errors import MalformedError
from relay.net.http_client import certificates_for

PROTOCOL = "relay.ingest.v1"
PATH = "/v1/ingest"
PING_S = 20.0
"""Time between pings. An idle publisher must notice a dead link too, because its last values are sent again."""


class WebSocketTransport:
    """Sends a queue's messages over one connection after the other. `url`: the relay's internal http(s) address."""

    def __init__(
        self,
        url: str,
        key: str,
        queue: SendQueue,
        *,
        attempts: int,
        timeout_s: float,
        backoff: Callable[[], Backoff],
    ) -> None:
        self._http_url = url
        self._key = key
        self._queue = queue
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._backoff = backoff()
        self._last_values = LastValues()
        self._run_name = secrets.token_hex(6).encode()
        self._epoch = ""
        self._failures = 0
        self._is_guarding = False
        """Whether there are last values for a relay without memory: then a lost connection is replaced at once."""

    async def run(self) -> NoReturn:
        """Connect when there are messages, and reconnect after each connection; until cancelled."""
        certificates = certificates_for(self._http_url)
        tls = certificates if isinstance(certificates, ssl.SSLContext) else None
        while True:
            if not self._is_guarding:
                await self._queue.filled.wait()
            opened = await self._open(tls)
            if isinstance(opened, PublishError):
                await self._failed(opened)
                continue
            socket, welcome = opened
            connection = IngestConnection(
                socket,
                welcome,
                self._queue,
                self._last_values,
                run_name=self._run_name,
                timeout_s=self._timeout_s,
            )
            self._send_last_values(welcome)
            try:
                ended = await connection.run()
            finally:
                self._queue.requeue()
                await socket.close()
            self._is_guarding = len(self._last_values) > 0
            if connection.has_settled:
                self._failures = 0
                self._backoff.reset()
            said = connection.problem or Problem(
                code="closed", message=f"{ended.code} {ended.reason}".strip()
            )
            await self._failed(
                PublishError(
                    said.code,
                    f"The relay at {self._http_url} ended the connection: {said.message or said.code}",
                    retryable=not is_final(ended.code),
                    retry_after_s=connection.retry_after_s,
                )
            )

    async def _open(self, tls: ssl.SSLContext | None) -> tuple[ClientConnection, Welcome] | PublishError:
        opened = await open_socket(
            "ws" + self._http_url.removeprefix("http") + PATH,
            bearer=self._key,
            tls=tls,
            timeout_s=self._timeout_s,
            ping_s=PING_S,
        )
        if isinstance(opened, HandshakeRefusal):
            message = opened.message
            if opened.status is None:
                message = f"The relay at {self._http_url} can't be reached: {message}."
            return PublishError(
                opened.code,
                message,
                status=opened.status,
                retryable=opened.is_retryable,
                retry_after_s=opened.retry_after_s,
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                welcome = parse_frame(await opened.recv(decode=False))
        except (TimeoutError, ConnectionClosed):
            welcome, is_retryable = None, True
        except MalformedError:
            welcome, is_retryable = None, False
        if isinstance(welcome, Welcome) and welcome.protocol == PROTOCOL:
            return opened, welcome
        with contextlib.suppress(OSError):
            opened.transport.abort()
        return PublishError(
            "unexpected_answer",
            f"The server at {self._http_url} does not answer like a relay's internal address.",
            status=101,
            retryable=welcome is None and is_retryable,
        )

    def _send_last_values(self, welcome: Welcome) -> None:
        """Queue each channel's last value if the relay lost its memory, unless a newer one is waiting."""
        if self._epoch and welcome.epoch != self._epoch:
            waiting = {entry.message.channel for entry in self._queue.unsent if entry.message.is_value}
            self._queue.put_first(self._last_values.without(waiting))
        self._epoch = welcome.epoch

    async def _failed(self, error: PublishError) -> None:
        """Wait before the next attempt; or fail all messages, if the error is final or all attempts are used."""
        self._failures += 1
        if error.retryable and self._failures < self._attempts:
            await asyncio.sleep(self._backoff.next(told_s=error.retry_after_s))
            return
        if not error.retryable:
            self._is_guarding = False  # the next publication tries again
        self._queue.fail_all(HaltedError.of(error))
        self._failures = 0
        if self._is_guarding:
            await asyncio.sleep(self._backoff.next(told_s=error.retry_after_s))
        else:
            self._backoff.reset()
