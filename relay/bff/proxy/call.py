"""One call: the request goes to the backend, and its answer to the browser."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from relay.bff.proxy.access import Access
from relay.bff.proxy.answers import Handling, Plan, RefusedAnswerError, decompressed, plan_answer
from relay.bff.proxy.field_filter import NotFilterableError
from relay.bff.proxy.headers import HeaderLists
from relay.bff.proxy.requests import CHUNKED, CheckedRequest
from relay.bff.proxy.token_search import CUT_BYTES, TokenSearch
from relay.bff.proxy.upstream import Connection, Head, Upstream, UpstreamError
from relay.core.errors import Reason, Refusal, RelayError
from relay.sessions.base import EndedRefusal, Session
from relay.web.client_link import ClientLink

IN_A_THREAD: Final = 65_536
"""Bytes from which a document is filtered in a thread: 250 ns a byte, and a tick of prices must not wait for 16 ms."""

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The settings of a call, see `relay.settings.proxy`."""

    lists: HeaderLists
    max_body_bytes: int
    inspect_bytes: int
    filter_bytes: int
    answer_s: float
    idle_s: float


class RefusedCallError(RelayError):
    """The call failed, or its answer was refused. If `started`, a part of the answer has gone out already."""

    def __init__(self, refusal: Refusal, *, started: bool) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.started = started


class Call:
    """One call. `run` does all of it, and `stop` ends it from elsewhere."""

    def __init__(
        self,
        request: CheckedRequest,
        access: Access,
        *,
        upstream: Upstream,
        options: CallOptions,
        address: str,
        link: ClientLink,
        receive: Receive,
        send: Send,
        renew: Callable[[Access], Awaitable[Access | EndedRefusal | None]],
    ) -> None:
        self._request = request
        self.access = access
        self._upstream = upstream
        self._options = options
        self._address = address
        self._link = link
        self._receive = receive
        self._send = send
        self._renew = renew
        self._loop = asyncio.get_running_loop()
        self._deadline = asyncio.timeout(None)
        self._late = Refusal(reason=Reason.BACKEND_TIMEOUT)
        self._stopped = False
        self._search = TokenSearch(access.secrets)
        self.is_stream = False
        self.started = False
        self.status = 0

    @property
    def session(self) -> Session:
        """The session that it belongs to."""
        return self.access.session

    @property
    def client_has_gone(self) -> bool:
        """See `RunningCall`."""
        return self._link.has_hung_up

    def stop(self, reason: Reason) -> None:
        """End the call without waiting: `run` raises."""
        if not self._stopped and not self._deadline.expired():
            self._late = Refusal(reason=reason)
            self._stopped = True
            self._deadline.reschedule(self._loop.time())

    async def run(self) -> None:
        """Do the call.

        Raises:
            RefusedCallError: with the reason, if it was stopped, too.
        """
        try:
            async with self._deadline:
                await self._run()
        except TimeoutError:
            refusal = self._late
        except UpstreamError as error:
            reason = Reason.BACKEND_TIMEOUT if error.late else Reason.BACKEND_FAILED
            refusal = Refusal(reason=reason, detail=str(error))
        except RefusedAnswerError as error:
            refusal = Refusal(reason=Reason.ANSWER_REFUSED, detail=str(error))
        else:
            return
        raise RefusedCallError(refusal, started=self.started) from None

    def _within(self, seconds: float | None, late: Reason = Reason.BACKEND_TIMEOUT) -> None:
        """From now on the next step may take so long; None: as long as it takes."""
        if not self._stopped and not self._deadline.expired():
            self._late = Refusal(reason=late)
            self._deadline.reschedule(None if seconds is None else self._loop.time() + seconds)

    async def _run(self) -> None:
        repeated = renewed = False
        while True:
            self._within(self._options.answer_s, Reason.BACKEND_UNAVAILABLE)
            connection = await self._upstream.acquire(fresh=repeated)
            is_whole = False
            try:
                head = await self._exchange(connection)
                if head.status == 401 and not renewed:
                    renewed = True
                    access = await self._renew(self.access)
                    if isinstance(access, EndedRefusal):
                        raise RefusedCallError(access, started=False)
                    if access is not None:
                        self.access = access
                        self._search = TokenSearch(access.secrets)
                        if (
                            self._request.body
                        ):  # it was passed on as it came, and can't be sent again from here
                            raise RefusedCallError(Refusal(reason=Reason.SESSION_RENEWED), started=False)
                        continue
                is_whole = await self._deliver(connection, head)
                return
            except UpstreamError as error:
                # the backend closed a kept connection at the moment when it was used again
                if repeated or not error.untouched or not self._is_repeatable:
                    raise
                repeated = True
            finally:
                self._upstream.release(connection, whole=is_whole)

    @property
    def _is_repeatable(self) -> bool:
        return self._request.body is None and self._request.method in ("GET", "HEAD")

    # up

    async def _exchange(self, connection: Connection) -> Head:
        """Send the request, and return the head of the answer, which may come before the body was sent."""
        connection.begin(self._request.method, self._request.target.raw, self._headers())
        if self._request.body is None:
            connection.end_body()
            self._within(self._options.answer_s)
            return await connection.head()
        upload = asyncio.create_task(self._upload(connection))
        try:
            return await connection.head()
        finally:
            upload.cancel()
            await asyncio.wait([upload])

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"host", self._upstream.authority),
            (b"authorization", b"Bearer " + self.access.token.encode("latin-1")),
            # an answer must be searched for tokens, and may have to be filtered
            (b"accept-encoding", b"identity"),
            (b"x-forwarded-for", self._address.encode("ascii")),
        ]
        if self._request.body == CHUNKED:
            headers.append((b"transfer-encoding", b"chunked"))
        elif self._request.body is not None:
            headers.append((b"content-length", str(self._request.body).encode()))
        return headers + self._request.headers

    async def _upload(self, connection: Connection) -> None:
        """Send the body as fast as the backend takes it. `head` tells what goes wrong with the connection."""
        size = 0
        with contextlib.suppress(UpstreamError):
            while True:
                self._within(self._options.idle_s, Reason.BODY_STALLED)
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return self.stop(Reason.CLIENT_CLOSED)
                piece = message.get("body", b"")
                size += len(piece)
                if size > self._options.max_body_bytes:
                    return self.stop(Reason.BODY_TOO_LARGE)
                if piece:
                    self._within(self._options.idle_s)
                    await connection.send(piece)
                if not message.get("more_body", False):
                    break
            connection.end_body()
            self._within(self._options.answer_s)
        return None

    # down

    async def _deliver(self, connection: Connection, head: Head) -> bool:
        """Pass an answer on. Return whether it was read to its end."""
        plan = plan_answer(head, self._request, self._options.lists, origin=self._upstream.origin)
        if any(self._search.is_in(value) for _, value in plan.headers):
            raise self._token_found()
        if plan.handling is Handling.NONE:
            return await self._deliver_head(connection, head, plan)
        if plan.handling is Handling.JSON:
            return await self._deliver_json(connection, head, plan)
        self.is_stream = plan.handling is Handling.STREAM
        if self.is_stream:
            await self._start(head, plan)
        first, is_whole = await self._beginning_of_part(connection) if plan.is_part else (b"", False)
        await self._pass_on(connection, head, plan, first, is_whole=is_whole)
        return True

    async def _beginning_of_part(self, connection: Connection) -> tuple[bytes, bool]:
        """Read enough of a part of a document to tell whether it begins within a token. Tell whether that is all."""
        body, is_whole = b"", False
        while len(body) < self._search.longest and not is_whole:
            self._within(self._options.idle_s)
            piece = await connection.piece()
            is_whole = piece is None
            body += piece or b""
        if self._search.is_part(body, is_whole=is_whole):
            raise self._token_found()
        return body, is_whole

    async def _deliver_head(self, connection: Connection, head: Head, plan: Plan) -> bool:
        is_whole = await connection.piece() is None
        await self._start(head, replace(plan, length=plan.length or (b"0" if head.status == 205 else b"")))
        await self._send({"type": "http.response.body", "body": b""})
        return is_whole

    async def _deliver_json(self, connection: Connection, head: Head, plan: Plan) -> bool:
        """Read a document first. One that is too long to be read goes on piece by piece, if nothing is removed."""
        self._within(self._options.answer_s)  # for all of it: a byte now and then must not hold it for hours
        strip = self._request.route.strip
        most = self._options.filter_bytes if strip else self._options.inspect_bytes
        pieces, size = [], 0
        while size <= most and (piece := await connection.piece()) is not None:
            pieces.append(piece)
            size += len(piece)
        body = b"".join(pieces)
        if not plan.compressed and self._search.is_in_json(body):
            raise self._token_found()
        if size > most:
            if strip or plan.compressed:
                raise RefusedAnswerError(f"The answer has more than {most} bytes, too many to be checked.")
            await self._pass_on(connection, head, plan, body)
            return True
        if plan.compressed:
            body = decompressed(body, most=most)
            if self._search.is_in_json(body):
                raise self._token_found()
        if strip and body:
            try:
                if len(body) > IN_A_THREAD:
                    body = await asyncio.to_thread(strip.filter, body)
                else:
                    body = strip.filter(body)
            except NotFilterableError as error:
                raise RefusedAnswerError(f"The route removes fields, and the answer is {error}.") from None
        self._within(None)
        await self._start(head, replace(plan, length=str(len(body)).encode()))
        await self._send({"type": "http.response.body", "body": body})
        return True

    async def _pass_on(
        self, connection: Connection, head: Head, plan: Plan, first: bytes, *, is_whole: bool = False
    ) -> None:
        """Pass pieces on as fast as the browser takes them, and look for tokens in them. `is_whole`: `first` is all."""
        piece: bytes | None = first
        while piece is not None:
            found = self._search.feed(piece)
            if found is None:
                raise self._token_found()
            if found:
                self._within(None)  # a browser that takes nothing is the listener's business
                await self._start(head, plan)
                await self._send({"type": "http.response.body", "body": found, "more_body": True})
            self._within(self._options.idle_s)
            piece = None if is_whole else await connection.piece()
        rest = self._search.rest()
        if plan.is_part and len(rest) >= CUT_BYTES:
            raise self._token_found()
        await self._start(head, plan)
        await self._send({"type": "http.response.body", "body": rest})

    async def _start(self, head: Head, plan: Plan) -> None:
        if self.started:
            return
        self.started, self.status = True, head.status
        headers = list(plan.headers)
        if plan.length:
            headers.append((b"content-length", plan.length))
        headers += self.access.cookies
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})

    def _token_found(self) -> RefusedCallError:
        return RefusedCallError(Refusal(reason=Reason.ANSWER_WITH_TOKEN), started=self.started)
