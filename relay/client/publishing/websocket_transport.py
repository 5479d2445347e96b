"""Publishing over a WebSocket: one connection after the other, and which messages are sent again on the next one.

Messages that were sent and not settled when a connection broke are sent again in their order. The relay may have
accepted some of them, and then gets them twice. On channels of mode `stream` each message has an idempotency key, the
caller's or an automatic one, so the relay drops the second copy. It remembers the newest 1000 keys of a channel, and no
more messages are unacknowledged at once. (A second publisher on the channel uses some of these 1000.) On `latest`
channels it drops a value with the same `version`. Without a version a price may come twice, and an older one shortly
after a newer one; the last value is right.

A close code can also say that the relay, or something before it, could not accept a frame (`FAULTS`). The same frame
would end each next connection, and no other message would come through. So the messages that were on their way are
sent one by one on the next connection. The one that ends it again is refused to its caller, and the others go on.

A relay that was killed remembers neither keys nor values, and has another epoch. Then the last value of each `latest`
channel is sent again. Accepted messages of `stream` channels are lost with the history, and subscribers are told.
"""

import asyncio
import contextlib
import secrets
import ssl
from typing import NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from relay.client.errors import PublishError
from relay.client.handshake import HandshakeRefusal, open_socket
from relay.client.publishing.frames import Problem, Welcome, parse_frame
from relay.client.publishing.ingest_connection import IngestConnection
from relay.client.publishing.last_values import LastValues
from relay.client.publishing.messages import EncodedMessage
from relay.client.publishing.send_queue import HaltedError
from relay.client.publishing.transport_options import TransportOptions
from relay.client.reconnect_policy import is_final
from relay.core.errors import MalformedError
from relay.net.http_client import certificates_for

PROTOCOL = "relay.ingest.v1"
PATH = "/v1/ingest"
FAULTS = frozenset({1002, 1003, 1007, 1008, 1009})
"""Close codes that blame a frame of the client: RFC 6455 §7.4.1."""
MAX_LONE_FAULTS = 3
"""Messages in a row that may be refused by a close. If more than these are faulty, the server is."""
PING_S = 20.0
"""Time between pings. An idle publisher must notice a dead link too, because its last values are sent again."""


class WebSocketTransport:
    """Sends a queue's messages over one connection after the other."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self._queue = options.queue
        self._backoff = options.backoff()
        self._last_values = LastValues()
        self._run_name = secrets.token_hex(6).encode()
        self._epoch = ""
        self._failures = 0
        self._suspects = 0
        """How many of the first messages may be the one that the relay could not accept."""
        self._lone_faults = 0
        self._is_guarding = False
        """Whether there are last values for a relay without memory: then a lost connection is replaced at once."""

    async def run(self) -> NoReturn:
        """Connect when there are messages, and reconnect after each connection; until cancelled."""
        certificates = certificates_for(self._options.url)
        tls = certificates if isinstance(certificates, ssl.SSLContext) else None
        while True:
            if not self._is_guarding:
                await self._queue.filled.wait()
            opened = await self._open(tls)
            if isinstance(opened, PublishError):
                await self._failed(opened)
                continue
            socket, welcome = opened
            again = self._send_last_values(welcome)
            connection = IngestConnection(
                socket,
                welcome,
                self._queue,
                self._last_values,
                run_name=self._run_name,
                timeout_s=self._options.timeout_s,
                alone=self._suspects and self._suspects + again,
            )
            unsettled = 0
            try:
                ended = await connection.run()
                unsettled = len(self._queue.sent)
            finally:
                self._queue.requeue()
                await socket.close()
            self._is_guarding = len(self._last_values) > 0
            self._suspects = connection.alone
            if connection.has_settled:
                self._failures = self._lone_faults = 0
                self._backoff.reset()
            said = connection.problem or Problem(
                code="closed", message=f"{ended.code} {ended.reason}".strip() + "."
            )
            error = PublishError(
                said.code,
                f"The relay at {self._options.url} ended the connection: {said.message or said.code}",
                retryable=not is_final(ended.code),
                retry_after_s=connection.retry_after_s,
            )
            if ended.code in FAULTS and unsettled and self._lone_faults < MAX_LONE_FAULTS:
                await self._single_out(error, unsettled)
            else:
                await self._failed(error)

    async def _open(self, tls: ssl.SSLContext | None) -> tuple[ClientConnection, Welcome] | PublishError:
        opened = await open_socket(
            "ws" + self._options.url.removeprefix("http") + PATH,
            bearer=self._options.key,
            tls=tls,
            timeout_s=self._options.timeout_s,
            ping_s=PING_S,
        )
        if isinstance(opened, HandshakeRefusal):
            if opened.status is None:
                return self._options.unreachable(opened.message)
            return PublishError(
                opened.code,
                opened.message,
                status=opened.status,
                retryable=opened.is_retryable,
                retry_after_s=opened.retry_after_s,
            )
        try:
            async with asyncio.timeout(self._options.timeout_s):
                welcome = parse_frame(await opened.recv(decode=False))
        except (TimeoutError, ConnectionClosed, MalformedError):
            welcome = None
        if isinstance(welcome, Welcome) and welcome.protocol == PROTOCOL:
            return opened, welcome
        with contextlib.suppress(OSError):
            opened.transport.abort()
        return self._options.not_a_relay(status=101)

    def _send_last_values(self, welcome: Welcome) -> int:
        """Queue each channel's last value if the relay lost its memory, unless a newer one is waiting.

        Returns how many were queued.
        """
        values: list[EncodedMessage] = []
        if self._epoch and welcome.epoch != self._epoch:
            waiting = {entry.message.channel for entry in self._queue.unsent if entry.message.is_value}
            values = self._last_values.without(waiting)
            self._queue.put_first(values)
        self._epoch = welcome.epoch
        return len(values)

    async def _single_out(self, error: PublishError, unsettled: int) -> None:
        """Refuse the one message that was on its way; if there were several, let them be sent one by one."""
        self._suspects = max(self._suspects, unsettled)
        if unsettled == 1:
            self._lone_faults += 1
            self._suspects -= 1
            self._queue.refuse_first(
                PublishError(error.code, f"{error.message} This message was the last that was sent.")
            )
        wait_s = self._backoff.next()
        self._options.report(error, wait_s)
        await asyncio.sleep(wait_s)

    async def _failed(self, error: PublishError) -> None:
        """Wait before the next attempt; or fail all messages, if the error is final or all attempts are used."""
        self._failures += 1
        wait_s = self._backoff.next(told_s=error.retry_after_s)
        self._options.report(error, wait_s)
        if error.retryable and self._failures < self._options.attempts:
            await asyncio.sleep(wait_s)
            return
        self._failures = self._suspects = self._lone_faults = 0
        if error.retryable:
            self._queue.fail_all(HaltedError.of(error))
            if self._is_guarding:
                await asyncio.sleep(wait_s)
            else:
                self._backoff.reset()
            return
        self._queue.refuse_all(HaltedError.of(error))
        self._is_guarding = False  # the next publication after the wait tries again
        await asyncio.sleep(wait_s)  # it grows: a wrong key stays wrong for hours
        self._queue.refusal = None
