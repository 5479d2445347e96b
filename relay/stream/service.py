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

from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, CONNECTING

from relay.audit.base import Auditor
from relay.core.closes import close_for
from relay.core.errors import MalformedError, Reason, Refusal
from relay.core.events import Action, Client
from relay.core.messages import Auth, parse_client_frame
from relay.core.protocol import ClientProtocol, HistoryRequest, RefreshRequest, Terms
from relay.net.addresses import Network, canonical_address, client_address
from relay.net.admission import CLOSED_PER_TURN, AdmissionQueue
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.stream.connection import StreamConnection
from relay.stream.fanout import Fanout, encode
from relay.stream.gate import Admission, Attempt, Denied, Gate, deny, refusal_response
from relay.stream.listener import TOKEN_WITHIN_S, listen
from relay.stream.registry import Registry
from relay.stream.reports import (
    accepted_event,
    closed_event,
    denied_event,
    refreshed_event,
    subscription_event,
)
from relay.stream.usage import Usage

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
        make_gate: Callable[[UnauthenticatedConnections, Callable[[], Reason | None]], Gate],
        unauthenticated: UnauthenticatedConnections,
        fanout: Fanout,
        auditor: Auditor,
        admission_queue: AdmissionQueue,
        accept_queue: AdmissionQueue,
    ) -> None:
        self._options = options
        self._admission_queue = admission_queue
        self._accept_queue = accept_queue
        self._closing_queue = AdmissionQueue(CLOSED_PER_TURN)
        self.unauthenticated = unauthenticated
        self._gate = make_gate(unauthenticated, self._closed)
        self._fanout = fanout
        self._auditor = auditor
        self._draining = False
        self._addresses: dict[StreamConnection, str] = {}
        self.registry = Registry(per_session=options.connections_per_session, replace=options.replace_oldest)

    async def start(self, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> list[Server]:
        """Listen on a bound socket, over TLS where `tls` is given. End what it returns with `stop`."""
        return await listen(
            sock,
            tls=tls,
            handle=self._handle,
            create_connection=self._make_connection,
            process_request=self._process_request,
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
        return Reason.RELAY_FULL if self._open > self._options.connections else None

    @property
    def _open(self) -> int:
        return len(self._addresses) + len(self.registry.connections)

    # one connection, from its first byte to its last

    def _make_connection(self, *args: Any, **options: Any) -> ServerConnection:
        return StreamConnection(
            *args, on_made=self._made, on_lost=self._lost, accept_queue=self._accept_queue, **options
        )

    def _made(self, connection: StreamConnection) -> None:
        # counted before the first byte: a silent connection never reaches `_process_request`
        peer = _peer(connection)
        self._wait(connection, peer)
        if self.unauthenticated.must_drop(peer, connections=self._open):
            connection.transport.abort()

    def _wait(self, connection: StreamConnection, address: str) -> None:
        self._unwait(connection)
        if connection.protocol.state is CLOSED:  # gone already: nobody would take it out of the counts again
            return
        self._addresses[connection] = address
        self.unauthenticated.add(address)

    def _lost(self, connection: StreamConnection) -> None:
        self._unwait(connection)
        self.registry.release(connection)  # it went while its token was looked up

    def _unwait(self, connection: StreamConnection) -> None:
        address = self._addresses.pop(connection, None)
        if address is not None:
            self.unauthenticated.remove(address)

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Run the gate; the library calls this before its own checks."""
        assert isinstance(connection, StreamConnection)
        await self._admission_queue.enter(priority=True)
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
            await self._admission_queue.enter(priority=True)  # many claims are answered at once
            await self._serve(connection, admission)

    async def _redeem(self, connection: StreamConnection, attempt: Attempt, token: str) -> Admission | Denied:
        result = await self._gate.redeem(attempt, token, reserve=partial(self.registry.reserve, connection))
        if isinstance(result, Denied):  # its place is for others, while it is told
            self.registry.release(connection)
        return result

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
        claims = admission.claims
        hub, registry = self._fanout.hub, self.registry
        registry.add(connection, admission)
        subscriber = hub.join(connection, encode)

        usage = Usage(claims.channel_scope)

        def report(action: Action, channels: Sequence[str], reason: Reason | None) -> None:
            if reason is None:
                usage.add(channels)
            if action is Action.CONNECT_ACCEPTED:
                self._auditor.note(accepted_event(connection, admission, channels))
            else:
                self._auditor.note(subscription_event(connection, admission, action, channels, reason))

        client = ClientProtocol(
            hub=hub,
            subscriber=subscriber,
            terms=Terms(
                connection=str(connection.id),
                scope=claims.channel_scope,
                expires_at=_expiry(admission, now),
                floor_ms=_floor_ms(admission),
            ),
            report=report,
            now=now,
        )
        connection.attach(hub, subscriber, client)
        try:
            # a log-out or a revocation may have passed between the gate's look and the registration
            if cut_off := self._gate.cut_off(claims, admission.kid, now=now):
                report(Action.CONNECT_ACCEPTED, (), None)
                connection.end(close_for(cut_off))
                return
            asked = admission.attempt.asked
            client.open(channels=asked.channels, interval_ms=asked.interval_ms, now=now)
            await self._receive(connection, client, admission, usage)
        finally:
            connection.detach(Reason.LINK_LOST)
            registry.remove(connection)
            await self._closing_queue.enter()
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
                if isinstance(result, RefreshRequest):
                    if refreshed := await self._refresh(connection, client, admission, result):
                        usage.widen(refreshed.claims.channel_scope)
                elif isinstance(result, HistoryRequest):
                    histories = await self._fanout.load_histories(result)
                    client.subscribe_with_history(result, histories, time.time())
                elif result is not None:
                    connection.end(result)
        except ConnectionClosed:
            return

    async def _refresh(
        self,
        connection: StreamConnection,
        client: ClientProtocol,
        admission: Admission,
        asked: RefreshRequest,
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
        if cut_off := self._gate.cut_off(result.claims, result.kid, now=time.time()):
            connection.end(close_for(cut_off))
            return None
        self._auditor.note(refreshed_event(connection, result))
        client.refreshed(
            asked,
            scope=result.claims.channel_scope,
            expires_at=_expiry(result, time.time()),
            floor_ms=_floor_ms(result),
        )
        return result


def _floor_ms(admission: Admission) -> int:
    """Return the fastest interval that the endpoint and the token allow."""
    return admission.claims.options.narrowed(admission.attempt.endpoint.options).min_interval_ms


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
    return canonical_address(str(address[0])) if isinstance(address, tuple) else ""
