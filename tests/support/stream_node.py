"""The stream side of a relay in this process, of real parts: tests can run single steps and look inside."""

import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server

from relay.audit.jsonl import JsonlAuditor
from relay.core.channels import ChannelOptions
from relay.core.grants import NO_OPTIONS
from relay.core.publications import Publication
from relay.keys.files import create_signing_key
from relay.keys.watched_folder import WatchedKeys
from relay.net.addresses import parse_networks
from relay.net.admission import AdmissionQueue
from relay.net.unauthenticated import Bounds, UnauthenticatedConnections
from relay.state.sqlite import SqliteState
from relay.stream.connection import StreamConnection
from relay.stream.fanout import Fanout
from relay.stream.gate import EndpointOptions, Gate, GateOptions
from relay.stream.service import Stream, StreamOptions
from tests.support.event_streams import RawEventStream, event_headers, open_event_stream
from tests.support.minted_tokens import TokenMint
from tests.support.raw_http import Fields
from tests.support.raw_websocket import RawWebSocket, open_raw_websocket, until

ORIGIN = "https://app.example.com"
STREAM_URL = "wss://stream.example.com"


@dataclass
class Node:
    """A listening stream and its parts."""

    port: int
    stream: Stream
    servers: list[Server]
    fanout: Fanout
    unauthenticated: UnauthenticatedConnections
    tickets: TokenMint
    audit_path: Path
    seqs: dict[str, int] = field(default_factory=dict)

    def audited(self) -> list[dict[str, Any]]:
        """Return the audit log's records so far."""
        return [json.loads(line) for line in self.audit_path.read_text().splitlines()]

    def publish(self, channel: str, data: bytes = b"1") -> None:
        """Hand a value to the hub as the broker does."""
        seq = self.seqs[channel] = self.seqs.get(channel, 0) + 1
        self.fanout.publish(Publication(channel=channel, epoch="e1", seq=seq, ts=seq, data=data))

    def dial(
        self, query: str = "", *, token: str = "", **options: Any
    ) -> AbstractAsyncContextManager[RawWebSocket]:
        """Open a wire with a token in the URL. Nothing has been read from it yet."""
        target = f"/ws/prices?token={token or self.tickets.token()}{query}"
        return open_raw_websocket(self.port, target, origin=ORIGIN, **options)

    async def refusals(self, count: int) -> list[str]:
        """Wait until the audit log has so many refused connections, and return their reasons."""

        def found() -> list[str]:
            denied = [one for one in self.audited() if one["event"]["action"] == "connect.denied"]
            return [one["event"]["reason"] for one in denied]

        await until(lambda: len(found()) >= count)
        return found()

    async def closed(self) -> dict[str, Any]:
        """Wait until the newest audit record is the end of a connection, and return it."""

        def is_there() -> bool:
            return any(one["event"]["action"] == "connection.closed" for one in self.audited()[-1:])

        await until(is_there)
        return self.audited()[-1]

    def ask(
        self,
        query: str = "",
        *,
        token: str | None = None,
        origin: str = ORIGIN,
        method: str = "GET",
        fields: Fields = (),
        **options: Any,
    ) -> AbstractAsyncContextManager[RawEventStream]:
        """Open an event stream with a token in the header Authorization. Nothing has been read from it yet."""
        token = self.tickets.token() if token is None else token
        headers = event_headers(token, origin=origin, more=fields)
        target = f"/ws/prices?{query.removeprefix('&')}".removesuffix("?")
        return open_event_stream(self.port, target, headers, method=method, **options)

    @property
    def connections(self) -> list[StreamConnection]:
        """The registered connections, oldest first."""
        return [one for one in self.stream.registry.connections if isinstance(one, StreamConnection)]

    async def empty(self) -> None:
        """Wait until the registry, the hub, the counts and the tasks have no connection left."""
        places: list[Any] = [self.stream.registry.connections, self.stream.registry._by_session]
        places += [
            self.stream._addresses,
            self.unauthenticated._counts,
            *(server.handler_tasks for server in self.servers),
        ]
        places += [self.fanout.hub._subscribers, self.fanout.hub._subscriptions._patterns]
        await until(lambda: not any(places))


_LATEST = ChannelOptions()


@asynccontextmanager
async def running_node(
    folder: Path,
    *,
    proxies: tuple[str, ...] = (),
    channels: ChannelOptions = _LATEST,
    unauthenticated: UnauthenticatedConnections | None = None,
    tls: ssl.SSLContext | None = None,
    transports: tuple[str, ...] = ("subprotocol", "query", "first_message"),
) -> AsyncIterator[Node]:
    """Run the stream side on a free port. All channels have the options `channels`."""
    key = create_signing_key(folder / "keys")
    endpoint = EndpointOptions(
        name="prices",
        path="/ws/prices",
        audience=f"{STREAM_URL}/ws/prices",
        max_age_s=3600,
        options=NO_OPTIONS,
    )
    options = GateOptions(
        issuer=ORIGIN,
        endpoints={endpoint.path: endpoint},
        allowed_origins=frozenset({ORIGIN}),
        transports=transports,
    )
    keys = WatchedKeys(folder / "keys")
    state = SqliteState.open(folder / "state.db")
    auditor = JsonlAuditor.open(folder / "audit.jsonl", node="test")
    unauthenticated = unauthenticated or UnauthenticatedConnections(Bounds(limit=100, crowd=10_000))
    fanout = Fanout(lambda _name: channels)
    stream = Stream(
        StreamOptions(
            trusted_proxies=parse_networks(proxies),
            connections=1000,
            connections_per_session=10,
            replace_oldest=True,
            drain_s=1,
            handover_s=1,
            sent_recorded=100,
            compression_cpu=0.1,
        ),
        make_gate=lambda unauthenticated, closed: Gate(
            options, keys=keys, state=state, unauthenticated=unauthenticated, closed=closed
        ),
        unauthenticated=unauthenticated,
        fanout=fanout,
        auditor=auditor,
        admission_queue=AdmissionQueue(),
        accept_queue=AdmissionQueue(),
    )
    sock = socket.create_server(("127.0.0.1", 0))
    servers = await stream.start(sock, tls=tls)
    try:
        yield Node(
            port=sock.getsockname()[1],
            stream=stream,
            servers=servers,
            fanout=fanout,
            unauthenticated=unauthenticated,
            audit_path=folder / "audit.jsonl",
            tickets=TokenMint(key=key, issuer=ORIGIN, audience=endpoint.audience, origin=ORIGIN),
        )
    finally:
        await stream.stop(servers)
        await auditor.aclose()
        await state.aclose()
