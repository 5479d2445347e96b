"""Publishing over a WebSocket: connections one after the other, and what has to be said again on the next one.

What was sent and not settled when a connection broke goes out again in its order. What the relay had taken already
it then gets twice. On channels of mode `stream` each message has an idempotency key, the caller's or an automatic
one, so the relay drops the second: it remembers the newest 1000 of a channel, and no more are on their way at once. (A
second publisher on the channel takes its share of them.) On `latest` channels it drops what has the same `version`.
Without a version a price may come twice, and an older one for a moment behind a newer; the last one stands.

A relay that has died remembers neither keys nor values. Then its epoch is another one, and the last value of each
`latest` channel is sent again. Messages of streams that it had taken are gone with its history, which subscribers
are told.
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
from relay.client.connecting import Refused, open_socket
from relay.client.errors import PublishError
from relay.client.publishing.frames import Problem, Welcome, parse_frame
from relay.client.publishing.last_values import LastValues
from relay.client.publishing.link import Link
from relay.client.publishing.outbox import HaltedError, Outbox
from relay.client.reconnecting import is_final
from relay.core.errors import MalformedError
from relay.net.http_client import certificates_for

PROTOCOL = "relay.ingest.v1"
PATH = "/v1/ingest"
PING_S = 20.0
"""A publisher that has nothing to say must learn of a dead link, too: its values are to be said again."""


class Streaming:
    """Empties an outbox over one connection after the other. `url` is the relay's internal http(s) address."""

    def __init__(
        self,
        url: str,
        key: str,
        outbox: Outbox,
        *,
        attempts: int,
        timeout_s: float,
        backoff: Callable[[], Backoff],
    ) -> None:
        self._http_url = url
        self._key = key
        self._outbox = outbox
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._backoff = backoff()
        self._last_values = LastValues()
        self._run_name = secrets.token_hex(6).encode()
        self._epoch = ""
        self._failures = 0
        self._is_guarding = False
        """There are values that a relay without memory would need, so a lost connection is replaced at once."""

    async def run(self) -> NoReturn:
        """Connect when there is something to send, and again whenever a connection ends; until cancelled."""
        certificates = certificates_for(self._http_url)
        tls = certificates if isinstance(certificates, ssl.SSLContext) else None
        while True:
            if not self._is_guarding:
                await self._outbox.filled.wait()
            opened = await self._open(tls)
            if isinstance(opened, PublishError):
                await self._failed(opened)
                continue
            connection, welcome = opened
            link = Link(
                connection,
                welcome,
                self._outbox,
                self._last_values,
                run_name=self._run_name,
                timeout_s=self._timeout_s,
            )
            self._remind(welcome)
            try:
                ended = await link.run()
            finally:
                self._outbox.again()
                await connection.close()
            self._is_guarding = len(self._last_values) > 0
            if link.has_settled:
                self._failures = 0
                self._backoff.reset()
            said = link.problem or Problem(code="closed", message=f"{ended.code} {ended.reason}".strip())
            await self._failed(
                PublishError(
                    said.code,
                    f"The relay at {self._http_url} ended the connection: {said.message or said.code}",
                    retryable=not is_final(ended.code),
                    retry_after_s=link.told_s,
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
        if isinstance(opened, Refused):
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
            f"What answers at {self._http_url} does not publish for this relay.",
            status=101,
            retryable=welcome is None and is_retryable,
        )

    def _remind(self, welcome: Welcome) -> None:
        """Say each channel's last value again if the relay lost its memory, but for those with a newer one waiting."""
        if self._epoch and welcome.epoch != self._epoch:
            waiting = {entry.draft.channel for entry in self._outbox.unsent if entry.draft.is_value}
            self._outbox.put_first(self._last_values.but_for(waiting))
        self._epoch = welcome.epoch

    async def _failed(self, error: PublishError) -> None:
        """Wait before the next attempt; or give everything up, if that is no use or there were enough of them."""
        self._failures += 1
        if error.retryable and self._failures < self._attempts:
            await asyncio.sleep(self._backoff.next(told_s=error.retry_after_s))
            return
        if not error.retryable:
            self._is_guarding = False  # whoever publishes next finds out whether that is mended
        self._outbox.give_up(HaltedError.of(error))
        self._failures = 0
        if self._is_guarding:
            await asyncio.sleep(self._backoff.next(told_s=error.retry_after_s))
        else:
            self._backoff.reset()
