"""The WebSocket listener: gate, connection, end, and the audit events of each."""

import asyncio
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, CONNECTING
from websockets.typing import Subprotocol

from relay.audit.base import Auditor
from relay.core.addresses import Network, plain
from relay.core.closes import close_for
from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.events import Action, Client
from relay.core.messages import MAX_FRAME_BYTES, PROTOCOL, Auth, parse_client_frame
from relay.core.protocol import ClientProtocol, RefreshAsked, Terms
from relay.stream.addresses import Waiting
from relay.stream.connection import CLOSE_TIMEOUT_S, StreamConnection
from relay.stream.fanout import Fanout
from relay.stream.gate import Admission, Attempt, Denied, Gate, deny, refusal_response
from relay.stream.registry import Registry
from relay.stream.reports import (
    accepted_event,
    closed_event,
    denied_event,
    refreshed_event,
    subscription_event,
)
from relay.stream.usage import Usage
from relay.tls import HANDSHAKE_WITHIN_S
from relay.turnstile import Turnstile
from relay.web.addresses import client_address

TOKEN_WITHIN_S = 5
"""Seconds for the handshake, and again for a token as first frame. Mobile networks take 2 s on a bad day."""
NOTSENT_LOWAT_BYTES = 8192
"""Unsent bytes that the kernel takes. Without it megabytes of old prices queue where nobody can replace them: a
reader of 20 KB/s on a stream of 145 KB/s then sees prices 13 s old; with 16 KiB 1.1 s and now and then 1.6, with
4 KiB 0.7 s."""
USER_TIMEOUT_MS = 30_000
"""TCP_USER_TIMEOUT: sent bytes that nobody acknowledges for so long end the connection."""
BACKLOG = 4096
LISTENERS = 4
"""On the same socket. uvloop accepts one connection a listener and turn; in a burst, when turns take long, connections
would come in at half the pace at which tokens are made for them."""
CLOSES_A_SECOND = 500
"""How fast a drain sends connections away at least: each comes back with a token request and a handshake."""
RECONNECT_WITHIN_MS = 5000
"""Clients come back within five seconds and a half of a drain, each at its own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The listener's settings."""

    trusted_proxies: Sequence[Network]
    connections: int
    connections_per_session: int
    replace_oldest: bool
    drain_s: float


class Stream:
    """The stream side of one node."""

    def __init__(
        self,
        options: StreamOptions,
        *,
        make_gate: Callable[[Waiting, Callable[[], Reason | None]], Gate],
        waiting: Waiting,
        fanout: Fanout,
        auditor: Auditor,
        turnstile: Turnstile,
        door: Turnstile,
    ) -> None:
        self._options = options
        self._turnstile = turnstile
        self._door = door
        self.waiting = waiting
        self._gate = make_gate(waiting, self._closed)
        self._fanout = fanout
        self._auditor = auditor
        self._draining = False
        self._addresses: dict[StreamConnection, str] = {}
        self.registry = Registry(per_session=options.connections_per_session, replace=options.replace_oldest)

    async def start(self, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> list[Server]:
        """Listen on a bound socket, over TLS where `tls` is given. End what it returns with `stop`."""
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES
        )  # accepted sockets inherit both
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        sockets = [sock, *(sock.dup() for _ in range(LISTENERS - 1))]
        return [await self._listen(each, tls) for each in sockets]

    async def _listen(self, sock: socket.socket, tls: ssl.SSLContext | None) -> Server:
        return await serve(
            self._handle,
            sock=sock,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_WITHIN_S if tls else None,
            create_connection=self._make_connection,  # type: ignore[arg-type]  # documented as a factory
            process_request=self._process_request,
            select_subprotocol=_select_subprotocol,
            compression=None,  # 12 KB instead of 67 KB a connection, and the same bytes for everybody
            server_header=None,
            open_timeout=TOKEN_WITHIN_S,
            ping_interval=None,  # `relay.stream.heart` pings
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            max_queue=4,
            # tell us as soon as one byte waits, and as soon as none does. A TLS transport is full at its limit, not
            # above it: with 0 every second write would be, and handshakes would wait for what never comes
            write_limit=1 if tls else 0,
        )

    async def drain(self) -> None:
        """Send everybody away, spread over `drain_s`, and tell each when to come back. The listener stays open.

        The gate answers 503 meanwhile, so that load balancers see it. A few connections go at once.
        """
        self._draining = True
        connections = list(self.registry.connections)
        spread = min(self._options.drain_s, len(connections) / CLOSES_A_SECOND)
        start = time.monotonic()
        for index, connection in enumerate(connections):
            wait = start + spread * index / len(connections) - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if connection.client is not None:
                # jitter from here, because clients that all reconnect at once would overrun who comes next
                connection.client.announce_restart(delay_ms=500 + secrets.randbelow(RECONNECT_WITHIN_MS))
            connection.end(close_for(Reason.SERVER_RESTARTING))

    async def stop(self, servers: Sequence[Server]) -> None:
        """Refuse new connections, close those that are open, and wait until they are gone (about a second)."""
        self._draining = True
        for connection in list(self.registry.connections):
            connection.end(close_for(Reason.SERVER_STOPPING))
        for connection in list(self._addresses):
            if (
                connection.protocol.state is CONNECTING
            ):  # it may never send a request, and would be waited for
                connection.transport.abort()
        for server in servers:
            server.close()
        for server in servers:
            await server.wait_closed()

    def _closed(self) -> Reason | None:
        """Tell why nobody is let in now. Who waits for the answer is counted too: that is memory as well."""
        if self._draining:
            return Reason.DRAINING
        full = len(self._addresses) + len(self.registry.connections) > self._options.connections
        return Reason.RELAY_FULL if full else None

    # one connection, from its first byte to its last

    def _make_connection(self, *args: Any, **options: Any) -> ServerConnection:
        return StreamConnection(*args, on_made=self._made, on_lost=self._lost, door=self._door, **options)

    def _made(self, connection: StreamConnection) -> None:
        # counted before the first byte: a silent connection never reaches `_process_request`
        self._wait(connection, _peer(connection))

    def _wait(self, connection: StreamConnection, address: str) -> None:
        self._unwait(connection)
        if connection.protocol.state is CLOSED:  # gone already: nobody would take it out of the counts again
            return
        self._addresses[connection] = address
        self.waiting.enter(address)

    def _lost(self, connection: StreamConnection) -> None:
        self._unwait(connection)
        self.registry.release(connection)  # it went while its token was looked up

    def _unwait(self, connection: StreamConnection) -> None:
        address = self._addresses.pop(connection, None)
        if address is not None:
            self.waiting.leave(address)

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Run the gate; the library calls this before its own checks."""
        assert isinstance(connection, StreamConnection)
        await self._turnstile.enter(ahead=True)
        peer = _peer(connection)
        address = client_address(
            peer, request.headers.get_all("X-Forwarded-For"), self._options.trusted_proxies
        )
        agents = request.headers.get_all("User-Agent")
        client = Client(address=address, peer=peer, user_agent=agents[0] if agents else "")
        if address != peer:
            self._wait(connection, address)
        result: Attempt | Admission | Denied = self._gate.inspect(request, connection.protocol, client)
        if isinstance(result, Attempt) and result.asked.token:
            result = await self._redeem(connection, result, result.asked.token)
        if isinstance(result, Denied) and result.refusal.reason is not Reason.CONNECTION_LIMIT:
            self._auditor.note(denied_event(result))
            return refusal_response(result.refusal)
        connection.admission = result
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, StreamConnection)
        admission = connection.admission
        if isinstance(admission, Attempt):
            admission = await self._first_message(connection, admission)
        if isinstance(admission, Denied):
            self._auditor.note(denied_event(admission))
            connection.end(close_for(admission.refusal.reason))
        if isinstance(admission, Admission):
            self._unwait(connection)
            connection.forget_handshake()
            await self._turnstile.enter(ahead=True)  # many claims are answered at once
            await self._serve(connection, admission)

    async def _redeem(self, connection: StreamConnection, attempt: Attempt, token: str) -> Admission | Denied:
        return await self._gate.redeem(attempt, token, reserve=partial(self.registry.reserve, connection))

    async def _first_message(
        self, connection: StreamConnection, attempt: Attempt
    ) -> Admission | Denied | None:
        """Take the token as the first frame. A browser sees the close code here, and nothing of a refused upgrade."""
        reason: Reason
        try:
            async with asyncio.timeout(TOKEN_WITHIN_S):
                message = await connection.recv()
        except TimeoutError:
            reason = Reason.TOKEN_TIMEOUT
        except ConnectionClosed:
            return None
        else:
            frame = _auth_frame(message)
            if isinstance(frame, Auth):
                return await self._redeem(connection, attempt, frame.token)
            reason = frame
        return deny(attempt, Refusal(reason=reason))

    async def _serve(self, connection: StreamConnection, admission: Admission) -> None:
        now = time.time()
        claims, endpoint = admission.claims, admission.attempt.endpoint
        hub, registry = self._fanout.hub, self.registry
        registry.add(connection, admission)
        subscriber = hub.join(connection)

        usage = Usage(claims.channel_scope)

        def report(action: Action, channels: Sequence[str], reason: Reason | None) -> None:
            if action is Action.SUBSCRIBE_ACCEPTED:
                usage.add(channels)
            self._auditor.note(subscription_event(connection, admission, action, channels, reason))

        client = ClientProtocol(
            hub=hub,
            subscriber=subscriber,
            terms=Terms(
                connection=str(connection.id),
                scope=claims.channel_scope,
                expires_at=_expiry(admission, now),
                floor_ms=max(endpoint.min_interval_ms, claims.min_interval_ms or 0),
            ),
            report=report,
            now=now,
        )
        connection.attach(hub, subscriber, client)
        self._auditor.note(accepted_event(connection, admission))
        try:
            # a log-out or a revocation may have passed between the gate's look and the registration
            if cut_off := self._gate.cut_off_since(admission, now=now):
                connection.end(close_for(cut_off))
                return
            asked = admission.attempt.asked
            client.open(asked=asked.channels, interval_ms=asked.interval_ms, now=now)
            await self._receive(connection, client, admission, usage)
        finally:
            connection.detach(Reason.LINK_LOST)
            registry.remove(connection)
            await connection.wait_closed()
            self._auditor.note(closed_event(connection, admission, subscriber, usage))

    async def _receive(
        self, connection: StreamConnection, client: ClientProtocol, admission: Admission, usage: Usage
    ) -> None:
        """Feed the client's frames to the protocol until the connection is closed by either side."""
        try:
            async for message in connection:
                if isinstance(message, str):
                    result = client.receive(message, time.time())
                else:
                    result = client.close(Reason.FRAME_BINARY)
                if isinstance(result, RefreshAsked):
                    if refreshed := await self._refresh(connection, client, admission, result):
                        usage.widen(refreshed.claims.channel_scope)
                elif result is not None:
                    connection.end(result)
        except ConnectionClosed:
            return

    async def _refresh(
        self, connection: StreamConnection, client: ClientProtocol, admission: Admission, asked: RefreshAsked
    ) -> Admission | None:
        """Check a new token of the same user, endpoint and origin, use it up, and let the connection go on with it."""
        attempt = replace(admission.attempt, asked=replace(admission.attempt.asked, transport="refresh"))
        reserve = partial(self.registry.reserve, connection)
        result = await self._gate.redeem(
            attempt, asked.token, reserve=reserve, subject=admission.claims.subject
        )
        if isinstance(result, Denied):
            self.registry.release(connection)
            self._auditor.note(denied_event(result))
            client.refresh_refused(asked, reason=result.refusal.reason)
            return None
        # a token of a newer log-in may refresh a connection of an older one: each must be able to end it
        self.registry.add(connection, result)
        if cut_off := self._gate.cut_off_since(result, now=time.time()):
            connection.end(close_for(cut_off))
            return None
        self._auditor.note(refreshed_event(connection, result))
        client.refreshed(asked, scope=result.claims.channel_scope, expires_at=_expiry(result, time.time()))
        return result


def _expiry(admission: Admission, now: float) -> float:
    """Return when a connection ends: at its endpoint's age limit, or with the log-in if that is known and earlier."""
    session_end = admission.claims.session_expires_at
    end = now + admission.attempt.endpoint.max_age_s
    return end if session_end is None else min(end, session_end)


def _auth_frame(message: str | bytes) -> Auth | Reason:
    if isinstance(message, bytes):
        return Reason.FRAME_BINARY
    try:
        frame = parse_client_frame(message)
    except MalformedError as error:
        return error.reason
    return frame if isinstance(frame, Auth) else Reason.FRAME_MALFORMED


def _peer(connection: StreamConnection) -> str:
    address = connection.remote_address
    return plain(str(address[0])) if isinstance(address, tuple) else ""


def _select_subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Select relay.v1 if it was offered. Offering none is fine; the token is never echoed."""
    return Subprotocol(PROTOCOL) if PROTOCOL in offered else None
