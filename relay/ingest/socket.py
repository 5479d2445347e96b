"""GET /v1/ingest: one WebSocket for many messages, with cumulative acks and credit.

- Each text frame has one or more messages, one a line, with ids from 1. They are published in their order.
- Each frame is answered by one ack, which covers every settled message.
- A message does not wait for the answer to the one before: the broker of several nodes takes them in batches.
  Messages are settled in their order, whatever becomes of each.
- Credit bounds how many messages a publisher may send ahead of the acks, and so the relay's memory.
- A malformed message gets an error of its own, and the others are published. A message without a readable id is a
  bug of the client and ends the connection, because no error could name it.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from relay.core.closes import Close, answer_for, close_for
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.core.publications import parse_numbered
from relay.ingest.frames import MAX_FRAME_MESSAGES, WINDOW, AckState, encode, message_id, welcome
from relay.ingest.service import Accepted, Begun, Ingest, RefusalSummary, Submitted
from relay.limits.quotas import Quota
from relay.web.answers import refusal_answer

PATH = "/v1/ingest"

MESSAGES_A_TURN = 64
"""Messages published before other tasks run: about 2 ms, as long as one slice of the fan-out loop."""

MAX_UNSETTLED = 512
MAX_UNSETTLED_BYTES = 1 << 20
"""Messages of one connection that the broker may have, and their data: eight of its batches by number, ten by bytes.
Nothing more is read from the connection until the first of them has its answer."""

MIN_WAIT_S = 0.02
"""Seconds between two checks of a quota: a publisher at its limit gets at most 50 frames with credit a second."""

RECONNECT_WITHIN_MS = 2000
"""Publishers reconnect 0.5 to 2.5 s after a drain. No prices arrive until then, so the time is short."""

ClientOf = Callable[[HTTPConnection], Client]


class _CloseConnection(Exception):  # noqa: N818  # control flow: the close code says whose fault it is
    """End the connection with this close."""

    def __init__(self, close: Close, detail: str = "") -> None:
        super().__init__(detail)
        self.close = close
        self.detail = detail


def _explained(reason: Reason, detail: str) -> _CloseConnection:
    """Return a close whose reason has the detail, which is short and ASCII: some clients show nothing else."""
    close = close_for(reason)
    return _CloseConnection(replace(close, text=f"{close.text}: {detail}"), detail)


class IngestSockets:
    """The publishers' open sockets. `streams` are the patterns of channels of mode `stream`."""

    def __init__(self, ingest: Ingest, client_of: ClientOf, *, streams: Iterable[str]) -> None:
        self._ingest = ingest
        self._client_of = client_of
        self._streams = tuple(streams)
        self._draining = False
        self._open: dict[asyncio.Task[Any], _PublisherConnection] = {}

    @property
    def route(self) -> WebSocketRoute:
        """The route of the internal listener."""
        return WebSocketRoute(PATH, self._serve)

    async def drain(self) -> None:
        """Settle the received messages, tell the publishers when to reconnect, and wait until they are gone."""
        self._draining = True
        for connection in self._open.values():
            connection.end(Reason.SERVER_RESTARTING)
        if self._open:
            await asyncio.wait(self._open, timeout=2.0)

    def end_refused(self) -> int:
        """End the sockets whose key is not accepted any more, and return their number. See `Ingest.update`."""
        refused = [
            connection
            for connection in self._open.values()
            if self._ingest.identify(connection.authorization) != connection.publisher
        ]
        for connection in refused:
            connection.end(Reason.PUBLISHER_UNKNOWN)
        return len(refused)

    async def _serve(self, websocket: WebSocket) -> None:
        client = self._client_of(websocket)
        authorization = websocket.headers.getlist("authorization")
        publisher = self._ingest.identify(authorization)
        refusal = publisher if isinstance(publisher, Refusal) else None
        if self._draining:
            refusal = Refusal(reason=Reason.DRAINING)
        if refusal is not None:
            name = publisher if isinstance(publisher, str) else ""
            status = answer_for(refusal.reason).status
            self._ingest.deny(refusal, client, status=status, publisher=name, authorization=authorization)
            await websocket.send_denial_response(refusal_answer(refusal))
            return
        assert isinstance(publisher, str)
        counts = self._ingest.counts[publisher]
        task = asyncio.current_task()
        assert task is not None
        # before the first await: a drain or a removed key must find it
        connection = _PublisherConnection(websocket, self._ingest, publisher, client, self._streams)
        self._open[task] = connection
        counts.connections += 1
        try:
            await websocket.accept()
            await connection.run()
        except WebSocketDisconnect:
            await connection.abandon()
        finally:
            counts.connections -= 1
            del self._open[task]


class _PublisherConnection:
    """One publisher's connection."""

    def __init__(
        self,
        websocket: WebSocket,
        ingest: Ingest,
        publisher: str,
        client: Client,
        streams: tuple[str, ...],
    ) -> None:
        self.publisher = publisher
        self.authorization = websocket.headers.getlist("authorization")
        self._ending: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._websocket = websocket
        self._ingest = ingest
        self._client = client
        self._streams = streams
        self._acks = AckState()
        self._last_id = 0
        self._credit = 0
        # in the order of their ids, which have no gap; None after the last message of a frame
        self._unsettled: deque[Begun | None] = deque()
        self._unsettled_bytes = 0
        self._refusals = RefusalSummary()
        self._is_gone = False

    def end(self, reason: Reason) -> None:
        """Ask the connection to end: because the relay restarts, or because its key was removed."""
        if not self._ending.done():
            self._ending.set_result(reason)

    async def run(self) -> None:
        """Publish the messages of each frame until either side ends the connection."""
        self._grant()
        await self._send(
            welcome(
                publisher=self.publisher,
                epoch=self._ingest.epoch,
                streams=self._streams,
                credit=self._credit,
                ts=int(time.time() * 1000),
            )
        )
        try:
            while (frame := await self._next()) is not None:
                await self._publish_frame(frame)
            await self._settle_all()
            if (reason := self._ending.result()) is not Reason.SERVER_RESTARTING:
                raise _CloseConnection(close_for(reason), "The key was removed from the settings.")
            await self._send({"type": "reconnect", "delay_ms": 500 + secrets.randbelow(RECONNECT_WITHIN_MS)})
            await self._end(close_for(Reason.SERVER_RESTARTING))
        except _CloseConnection as end:
            await self._settle_all()
            answer = answer_for(end.close.reason)
            await self._send(
                {
                    "type": "error",
                    "code": answer.code,
                    "message": end.detail or answer.message,
                    "retryable": answer.retryable,
                }
            )
            refusal = Refusal(reason=end.close.reason, detail=end.detail)
            self._ingest.deny(refusal, self._client, status=answer.status, publisher=self.publisher)
            await self._end(end.close)

    async def abandon(self) -> None:
        """Count what the broker still has. The publisher is gone and gets no answer."""
        self._is_gone = True
        await self._settle_all()

    async def _next(self) -> bytes | None:
        """Return the next frame, or None if `end` was called and no frame has arrived."""
        ending: asyncio.Future[Any] = self._ending
        receiving = asyncio.ensure_future(self._websocket.receive())
        try:
            while not (receiving.done() or ending.done()):
                # a publisher without credit sends nothing: check the quota again when it allows more
                wait = max(MIN_WAIT_S, self._quota.wait_s(time.monotonic())) if self._is_short else None
                waits = [receiving, ending, *self._awaited]
                await asyncio.wait(waits, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                await self._settle()
                if self._is_short and self._grant():
                    await self._send(self._acks.ack(credit=self._credit))
            if not receiving.done():
                return None
            message = receiving.result()
        finally:
            receiving.cancel()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text = message.get("text")
        if text is None:
            raise _CloseConnection(close_for(Reason.FRAME_BINARY))
        data = text.encode()
        assert isinstance(data, bytes)
        return data

    async def _publish_frame(self, frame: bytes) -> None:
        lines = [line for line in frame.split(b"\n") if line.strip()]
        if len(lines) > MAX_FRAME_MESSAGES:
            raise _explained(
                Reason.FRAME_TOO_LARGE,
                f"A frame has at most {MAX_FRAME_MESSAGES} messages, this one {len(lines)}.",
            )
        try:
            for number, line in enumerate(lines, 1):
                self._publish(line)
                if not number % MESSAGES_A_TURN:
                    await self._settle()
                    await asyncio.sleep(0)
                while len(self._unsettled) >= MAX_UNSETTLED or self._unsettled_bytes >= MAX_UNSETTLED_BYTES:
                    await self._settle_next()
        finally:
            if lines:
                self._unsettled.append(None)
        await self._settle()

    def _publish(self, line: bytes) -> None:
        """Hand a message to the broker."""
        self._ingest.charge(self.publisher, len(line))
        begun: Begun
        try:
            draft = parse_numbered(line)
            self._check_id(draft.id)
            begun = self._ingest.submit(self.publisher, draft, address=self._client.address)
        except MalformedError as error:
            id_ = message_id(line)
            if id_ is None:
                raise _CloseConnection(close_for(Reason.FRAME_MALFORMED), error.detail) from None
            if id_ != self._last_id:
                self._check_id(id_)
            begun = Refusal.of(error)
        except UnavailableError as error:
            begun = Refusal.of(error)
        if isinstance(begun, Accepted) and not self._unsettled:
            self._accepted(begun)
            return
        if isinstance(begun, Submitted):
            self._unsettled_bytes += begun.size or 0
        self._unsettled.append(begun)

    def _accepted(self, accepted: Accepted) -> None:
        self._acks.published(self._acks.upto + 1, accepted.channel, accepted.position.epoch, accepted.dropped)

    async def _settle(self) -> None:
        """Answer the messages whose outcome is known, up to the first one that has none yet."""
        unsettled = self._unsettled
        while unsettled:
            message = unsettled[0]
            if isinstance(message, Submitted) and not message.answer.done():
                return
            unsettled.popleft()
            if message is None:
                self._refusals.record(self._ingest, self._client, publisher=self.publisher)
                self._refusals = RefusalSummary()
                await self._acknowledge()
                continue
            result = self._outcome(message)
            if isinstance(result, Refusal):
                id_ = self._acks.upto + 1
                self._acks.refused(id_)
                await self._send({"type": "error", "id": id_} | dict(self._refusals.add(result)))
            else:
                self._accepted(result)

    async def _settle_next(self) -> None:
        """Wait until the next message can be settled, and settle what can be."""
        if self._awaited:
            await asyncio.wait(self._awaited)
        await self._settle()

    async def _settle_all(self) -> None:
        while self._unsettled:
            await self._settle_next()

    @property
    def _awaited(self) -> "list[asyncio.Future[Any]]":
        """The answer that the next message to be settled waits for, if it does."""
        message = self._unsettled[0] if self._unsettled else None
        if isinstance(message, Submitted) and isinstance(message.answer, asyncio.Future):
            return [message.answer]
        return []

    def _outcome(self, begun: Begun) -> Accepted | Refusal:
        if not isinstance(begun, Submitted):
            return begun
        self._unsettled_bytes -= begun.size or 0
        try:
            return self._ingest.settle(self.publisher, begun, address=self._client.address)
        except (MalformedError, UnavailableError) as error:
            return Refusal.of(error)

    def _check_id(self, id_: int) -> None:
        if id_ != self._last_id + 1:
            raise _CloseConnection(
                close_for(Reason.FRAME_MALFORMED),
                f"The id is {id_}, and {self._last_id + 1} was expected: ids count from 1.",
            )
        if id_ > self._credit:
            raise _explained(Reason.FRAMES_TOO_FAST, f"The credit ends at {self._credit}: wait for an ack.")
        self._last_id = id_

    async def _acknowledge(self) -> None:
        self._grant()
        await self._send(self._acks.ack(credit=self._credit))

    @property
    def _quota(self) -> Quota:
        return self._ingest.quota(self.publisher)

    @property
    def _window(self) -> int:
        return self._quota.window(WINDOW)

    @property
    def _is_short(self) -> bool:
        """Whether the quota will allow more credit later. Until all is settled, the next ack gives what it allows."""
        return not self._unsettled and self._credit < self._last_id + self._window

    def _grant(self) -> bool:
        """Raise the credit to what the quota allows. Returns whether it was raised."""
        before = self._credit
        self._credit = max(before, self._acks.upto + self._quota.room(time.monotonic(), self._window))
        return self._credit > before

    async def _send(self, frame: Mapping[str, Any]) -> None:
        if not self._is_gone:
            await self._websocket.send({"type": "websocket.send", "text": encode(frame).decode()})

    async def _end(self, close: Close) -> None:
        await self._websocket.close(int(close.code), close.text)
