"""The stream service of one node: accepts connections, serves each of them, drains and stops.

A WebSocket's walk: `_on_made` (counted as unauthenticated), `_process_request` (the gate), `_handle` (perhaps the
token as first frame), `_serve` (registered, joined to the hub), `_receive` (its frames), and the audit event of its
end. An event stream's: `_on_made`, `_process_request`, `_answer_events` (the gate), `_serve`, and its end.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace
from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from relay.audit.base import Auditor
from relay.core.closes import close_for
from relay.core.errors import Reason, Refusal
from relay.core.events import Action, Client
from relay.core.messages import Auth, Since
from relay.core.protocol import ClientProtocol, HistoryRequest, RefreshRequest, Terms
from relay.net.addresses import Network, canonical_address, client_address
from relay.net.admission import CLOSED_PER_TURN, FRAME_S, FRAMES_PER_TURN, AdmissionQueue
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.state.base import Places
from relay.stream.compression import Compressor
from relay.stream.connection import StreamConnection
from relay.stream.fanout import Fanout
from relay.stream.gate import Admitted, Attempt, Denied, Gate, GateOptions, GateResult, deny
from relay.stream.handshake import WebSocketHandshake, auth_frame, refusal_response
from relay.stream.lifecycle import GONE, UNANSWERED
from relay.stream.listener import TOKEN_WITHIN_S, listen
from relay.stream.registry import Registry
from relay.stream.reports import (
    accepted_event,
    denied_event,
    refreshed_event,
    subscription_event,
)
from relay.stream.sent import SentReports
from relay.stream.spread_end import end_spread
from relay.stream.sse import SseConnection
from relay.stream.sse_handshake import (
    EventSources,
    SseHandshake,
    asks_for_events,
    cors_headers,
    events_response,
    preflight_response,
    refused_response,
)
from relay.stream.terms import expiry, floor_ms, lifetime_s, unix_lead
from relay.stream.usage import Usage

_NOWHERE: Mapping[str, Since] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The service's settings."""

    trusted_proxies: Sequence[Network]
    connections: int
    connections_per_session: int
    replace_oldest: bool
    drain_s: float
    handover_s: float
    sent_recorded: int
    compression_cpu: float


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
        places: Places | None = None,
    ) -> None:
        self._options = options
        self.compressor = Compressor(cpu=options.compression_cpu)
        self._admission_queue = admission_queue
        self._accept_queue = accept_queue
        self._closing_queue = AdmissionQueue(CLOSED_PER_TURN)
        self._frame_queue = AdmissionQueue(FRAMES_PER_TURN)
        self.unauthenticated = unauthenticated
        self._gate = make_gate(unauthenticated, self._closed)
        self._fanout = fanout
        self._auditor = auditor
        self.sent = SentReports(fanout.hub, auditor, each=options.sent_recorded)
        self._draining = False
        self._event_sources = EventSources()
        self._event_streams: set[asyncio.Task[None]] = set()
        self._addresses: dict[StreamConnection, str] = {}  # of the connections counted in `unauthenticated`
        self.registry = Registry(
            per_session=options.connections_per_session,
            replace=options.replace_oldest,
            closing_queue=self._closing_queue,
            places=places,
        )

    def update(self, options: StreamOptions, gate: GateOptions) -> None:
        """Use other options from now on. Open connections stay open."""
        self._options = options
        self.compressor.update(cpu=options.compression_cpu)
        self.sent.each = options.sent_recorded
        self.registry.update(per_session=options.connections_per_session, replace=options.replace_oldest)
        self._gate.update(gate)

    async def start(self, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> list[Server]:
        """Listen on a bound socket, over TLS if `tls` is given. Give the result to `stop`."""
        return await listen(
            sock,
            tls=tls is not None,
            handle=self._handle,
            # the methods are bound once for all connections: 64 bytes each
            create_connection=partial(
                StreamConnection,
                on_made=self._on_made,
                on_lost=self._on_lost,
                on_refused=self._on_refused,
                accept_queue=self._accept_queue,
                closing_queue=self._closing_queue,
                tls=tls,
            ),
            process_request=self._process_request,
        )

    async def drain(self, *, has_successor: bool = False) -> None:
        """Close all connections, spread over at most `drain_s`, and tell each client when to reconnect.

        The gate answers 503, so that load balancers see it. If there is a successor, it has the listener already, and
        they are spread over `handover_s`.
        """
        self._draining = True
        await self.end_all(Reason.SERVER_RESTARTING, has_successor=has_successor)

    async def end_all(
        self, reason: Reason, *, wanted: Callable[[], bool] = lambda: True, has_successor: bool = False
    ) -> int:
        """Close all connections, spread over at most `drain_s`, as long as that is `wanted`. See `end_spread`."""
        return await end_spread(
            list(self.registry.connections),
            reason,
            within_s=self._options.handover_s if has_successor else self._options.drain_s,
            wanted=wanted,
            has_successor=has_successor,
        )

    async def stop(self, servers: Sequence[Server]) -> None:
        """Refuse new connections, close the open ones, and wait until they are gone (about a second)."""
        self._draining = True
        for connection in list(self.registry.connections):
            connection.end(close_for(Reason.SERVER_STOPPING))
        for unauthenticated in list(self._addresses):
            if unauthenticated.phase in UNANSWERED:  # it may never send a request: `wait_closed` would wait
                unauthenticated.abort()
        for server in servers:
            server.close()
        for server in servers:
            await server.wait_closed()
        if self._event_streams:
            await asyncio.wait(self._event_streams)

    def _closed(self) -> Reason | None:
        """Return why no connection is admitted now, or None. The connection in question is counted."""
        if self._draining:
            return Reason.DRAINING
        return Reason.RELAY_FULL if self._open > self._options.connections else None

    @property
    def _open(self) -> int:
        return len(self._addresses) + len(self.registry.connections)

    # unauthenticated connections

    def _on_made(self, connection: StreamConnection) -> None:
        # before the first byte: a silent connection never reaches `_process_request`
        peer = _peer(connection)
        self._count(connection, peer)
        if self.unauthenticated.must_drop(peer, connections=self._open):
            connection.abort()
        elif self.unauthenticated.must_make_room(connections=self._open, limit=self._options.connections):
            # the oldest: clients with a token show it within milliseconds, and silent ones stay for seconds
            oldest = next(iter(self._addresses))
            self._uncount(oldest)
            oldest.abort()

    def _on_lost(self, connection: StreamConnection) -> None:
        self.unauthenticated.unserved += connection in self._addresses
        self._uncount(connection)
        self.registry.release(connection)  # it may have gone while its token was looked up

    def _on_refused(self, connection: StreamConnection, refusal: Refusal) -> None:
        peer = _peer(connection)
        self._auditor.note(denied_event(Denied(refusal=refusal, client=Client(address=peer, peer=peer))))

    def _count(self, connection: StreamConnection, address: str) -> None:
        """Count a connection as unauthenticated, for another address than before if it was counted already."""
        self._uncount(connection)
        if connection.phase not in GONE:  # `_on_lost` was called already for one that has gone
            self._addresses[connection] = address
            self.unauthenticated.add(address)

    def _uncount(self, connection: StreamConnection) -> None:
        address = self._addresses.pop(connection, None)
        if address is not None:
            self.unauthenticated.remove(address)

    # one connection, from its handshake to its end

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Let the gate decide. Return the answer to the handshake: 101, or a refusal.

        A connection over its session's limit gets 101 and then a close frame with 4503: a browser can't read the
        status of a refused handshake, and its user has to be told.
        """
        assert isinstance(connection, StreamConnection)
        await self._admission_queue.enter(priority=True)
        peer = _peer(connection)
        address = client_address(
            peer, request.headers.get_all("X-Forwarded-For"), self._options.trusted_proxies
        )
        agents = request.headers.get_all("User-Agent")
        client = Client(address=address, peer=peer, user_agent=agents[0] if agents else "")
        if address != peer:
            self._count(connection, address)
        if asks_for_events(request):
            return await self._answer_events(connection, SseHandshake(request), client)
        handshake = WebSocketHandshake(request, connection.protocol)
        result: GateResult = self._gate.inspect(handshake, client)
        if isinstance(result, Attempt) and result.request.token:
            result = await self._redeem(connection, result, result.request.token)
        elif isinstance(result, Denied):
            result = await self._gate.identify(result, handshake)
        if isinstance(result, Denied) and result.refusal.reason is not Reason.CONNECTION_LIMIT:
            await self._auditor.note_refusal(denied_event(result))
            return refusal_response(result.refusal)
        connection.gate_result = result
        return handshake.response

    async def _handle(self, connection: ServerConnection) -> None:
        """Serve one connection whose handshake is answered with 101. The library calls this."""
        assert isinstance(connection, StreamConnection)
        result = connection.gate_result
        if isinstance(result, Attempt):
            result = await self._first_message(connection, result)
        if isinstance(result, Denied):
            await self._auditor.note_refusal(denied_event(result))
            connection.end(close_for(result.refusal.reason))
        if isinstance(result, Admitted):
            self._uncount(connection)
            connection.forget_handshake()
            # one commit of the state store answers many claims
            await self._admission_queue.enter(priority=True)
            self.registry.add(connection, result)
            await self._serve(connection, result)

    async def _answer_events(
        self, connection: StreamConnection, handshake: SseHandshake, client: Client
    ) -> Response:
        """Let the gate decide on an event stream. Return the answer, which nobody sends if the stream has begun."""
        result: GateResult = self._gate.inspect(handshake, client)
        if isinstance(result, Attempt) and handshake.method == "GET":
            result = await self._redeem(connection, result, result.request.token)
        elif isinstance(result, Denied):
            result = await self._gate.identify(result, handshake)
        if isinstance(result, Admitted) and self._draining:  # it began while the state store was asked
            self.registry.release(connection)
            result = deny(result.attempt, Refusal(reason=Reason.DRAINING), (result.claims, result.kid))
        cors: dict[str, str] = {}
        if len(handshake.origins) == 1 and self._gate.allows(handshake.origins[0]):
            cors = cors_headers(handshake.origins[0])
        response = events_response(cors)
        if isinstance(result, Denied):
            result = self._event_sources.explain(result, handshake)
            await self._auditor.note_refusal(denied_event(result))
            response = refused_response(result, cors)
        elif isinstance(result, Admitted):
            self._begin_events(connection, result, response)
        elif handshake.method == "OPTIONS":
            response = preflight_response(cors)
        if handshake.method == "HEAD":
            response.body = b""
        return response

    def _begin_events(self, connection: StreamConnection, admitted: Admitted, head: Response) -> None:
        """Begin an event stream, and serve it in a task of its own: the library's has a time limit."""
        compress = admitted.attempt.request.compress
        events = SseConnection(connection, closing_queue=self._closing_queue, compress=compress)
        self._uncount(connection)
        self._event_sources.remember(admitted)
        request = admitted.attempt.request
        last_id = self._fanout.hub.positions.first(request.last_id)
        if not events.begin(connection, head, last_id):
            self.registry.release(connection)
            return
        # without the positions, which can be 80 KB, and would stay in memory as long as the connection
        attempt = replace(admitted.attempt, request=replace(request, since={}, last_id=last_id))
        self.registry.add(events, admitted := replace(admitted, attempt=attempt), reserved=connection)
        task = asyncio.create_task(self._serve_events(events, admitted, request.since))
        self._event_streams.add(task)
        task.add_done_callback(self._event_streams.discard)

    async def _serve_events(
        self, connection: SseConnection, admitted: Admitted, since: Mapping[str, Since]
    ) -> None:
        await self._admission_queue.enter(priority=True)
        await self._serve(connection, admitted, since)

    async def _redeem(self, connection: StreamConnection, attempt: Attempt, token: str) -> Admitted | Denied:
        result: Admitted | Denied | None = None
        try:
            reserve = partial(self.registry.reserve, connection)
            return (result := await self._gate.redeem(attempt, token, reserve=reserve))
        finally:
            if not isinstance(result, Admitted) or connection.phase in GONE:
                self.registry.release(connection)

    async def _first_message(
        self, connection: StreamConnection, attempt: Attempt
    ) -> Admitted | Denied | None:
        """Read the token from the first frame. Return None if the connection has gone.

        A browser sees the close code of a refusal here. It sees nothing of a refused handshake.
        """
        reason: Reason
        try:
            async with asyncio.timeout(TOKEN_WITHIN_S):
                message = await connection.recv()
        except TimeoutError:
            reason = Reason.TOKEN_TIMEOUT
        except ConnectionClosed:
            return None
        else:
            frame = auth_frame(message)
            if isinstance(frame, Auth):
                return await self._redeem(connection, attempt, frame.token)
            reason = frame
        return deny(attempt, Refusal(reason=reason))

    async def _serve(
        self,
        connection: StreamConnection | SseConnection,
        admitted: Admitted,
        since: Mapping[str, Since] = _NOWHERE,
    ) -> None:
        """Join a registered connection to the hub, and serve it to its end."""
        now = time.monotonic()
        claims = admitted.claims
        hub = self._fanout.hub
        subscriber = hub.join(connection, connection.encode, connection.pack(self.compressor))
        usage = Usage(claims.channel_scope)
        report = partial(self._report, connection, admitted, usage)
        lifetime = lifetime_s(admitted.attempt.endpoint.max_age_s)
        client = ClientProtocol(
            hub=hub,
            subscriber=subscriber,
            terms=Terms(
                connection=str(connection.id),
                scope=claims.channel_scope,
                expires_at=expiry(admitted, now, lifetime),
                floor_ms=floor_ms(admitted),
            ),
            report=report,
            now=now,
            unix_lead=unix_lead,
        )
        connection.attach(hub, subscriber, client)
        self.sent.begin(connection, admitted, subscriber)
        try:
            # a log-out or a revocation can come between the gate's look and the registration
            if revoked := self._gate.revocation(claims, admitted.kid):
                report(Action.CONNECT_ACCEPTED, (), None)
                connection.end(close_for(revoked))
                return
            request = admitted.attempt.request
            missing = client.missing_history(request.channels, since)
            histories = await self._fanout.load_histories(missing) if missing else {}
            client.open(
                channels=request.channels,
                interval_ms=request.interval_ms,
                now=time.monotonic() if missing else now,
                since=since,
                histories=histories,
                resume=self._fanout.hub.positions.resume(request.last_id),
            )
            if isinstance(connection, StreamConnection):
                await self._receive(connection, client, admitted, usage, lifetime)
            else:
                del client, since, histories, missing
                await connection.wait_closed()
        finally:
            # after an error of the relay alone it is still open
            connection.end(close_for(Reason.INTERNAL_ERROR))
            self.registry.remove(connection)
            await self._closing_queue.enter()
            await connection.wait_closed()
            self.sent.end(connection, usage)

    def _report(
        self,
        connection: StreamConnection | SseConnection,
        admitted: Admitted,
        usage: Usage,
        action: Action,
        channels: Sequence[str],
        reason: Reason | None,
    ) -> None:
        """Record what the protocol of a connection has accepted or refused."""
        if reason is None:
            usage.add(channels)
        if action is Action.CONNECT_ACCEPTED:
            self._auditor.note(accepted_event(connection, admitted, channels))
        else:
            self._auditor.note(subscription_event(connection, admitted, action, channels, reason))

    async def _receive(
        self,
        connection: StreamConnection,
        client: ClientProtocol,
        admitted: Admitted,
        usage: Usage,
        lifetime: float,
    ) -> None:
        """Give the client's frames to the protocol until either side closes the connection."""
        try:
            while True:  # `async for` would hold a generator of the library for each connection
                message = await connection.recv()
                await self._frame_queue.enter()
                began = time.perf_counter()
                if isinstance(message, str):
                    result = client.receive(message, time.monotonic())
                else:
                    result = client.close(Reason.FRAME_BINARY)
                self._frame_queue.use(int((time.perf_counter() - began) / FRAME_S))
                if isinstance(result, RefreshRequest):
                    refreshed = await self._refresh(connection, client, admitted, result, lifetime)
                    if refreshed:
                        usage.widen(refreshed.claims.channel_scope)
                elif isinstance(result, HistoryRequest):
                    histories = await self._fanout.load_histories(result)
                    client.subscribe_with_history(result, histories, time.monotonic())
                elif result is not None:
                    connection.end(result)
        except ConnectionClosed:
            return

    async def _refresh(
        self,
        connection: StreamConnection,
        client: ClientProtocol,
        admitted: Admitted,
        request: RefreshRequest,
        lifetime: float,
    ) -> Admitted | None:
        """Use up a new token of the same user, endpoint and origin, and continue the connection with it.

        Return None if the token was refused, or the connection ended.
        """
        attempt = replace(admitted.attempt, request=replace(admitted.attempt.request, transport="refresh"))
        reserve = partial(self.registry.reserve, connection)
        result = await self._gate.redeem(
            attempt, request.token, reserve=reserve, subject=admitted.claims.subject
        )
        if isinstance(result, Denied):
            self.registry.release(connection)
            await self._auditor.note_refusal(denied_event(result))
            client.refresh_refused(request, reason=result.refusal.reason)
            return None
        # the new token may be of a newer log-in of the same user: a revocation of either must end the connection
        self.registry.add(connection, result)
        if revoked := self._gate.revocation(result.claims, result.kid):
            connection.end(close_for(revoked))
            return None
        self._auditor.note(refreshed_event(connection, result))
        client.refreshed(
            request,
            scope=result.claims.channel_scope,
            expires_at=expiry(result, time.monotonic(), lifetime),
            floor_ms=floor_ms(result),
        )
        return result


def _peer(connection: StreamConnection) -> str:
    address = connection.remote_address
    return canonical_address(str(address[0])) if isinstance(address, tuple) else ""
