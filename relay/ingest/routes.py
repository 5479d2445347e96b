"""Publishing over HTTP: POST /v1/publish for one message, POST /v1/publish/batch for up to 1000."""

import codecs
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.core.hub import Hub
from relay.core.publications import MAX_PUBLICATION_BYTES
from relay.core.scope import Scope
from relay.ingest.service import Accepted, Begun, Ingest, RefusalSummary
from relay.ingest.subscriber_counts import count_subscribers
from relay.ingest.values import many_values, one_value
from relay.limits.retry_after import jittered, retry_after
from relay.web.answers import json_answer, refusal_answer
from relay.web.bodies import read_body

MAX_BATCH = 1000
MAX_BATCH_BYTES = 1 << 20
"""With these bounds one batch keeps the event loop busy for about 10 ms. All subscribers would notice a longer time."""

ClientOf = Callable[[Request], Client]
Handler = Callable[[Request, Ingest, ClientOf, str], Awaitable[Response | Refusal]]
Handle = Callable[[Request], Awaitable[Response]]
ReadValues = Callable[[Request, Hub, Scope], Response | Refusal]


_ENVELOPE = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"messages"[ \t\r\n]*:(.*)\}[ \t\r\n]*', re.DOTALL)
"""The envelope is removed by hand: with two `messages` members a decoder would silently drop the first one."""

_messages = msgspec.json.Decoder(list[msgspec.Raw])


def ingest_routes(
    ingest: Ingest, client_of: ClientOf, *, hub: Hub, for_operators: Callable[[str, ReadValues], Route]
) -> list[Route]:
    """Return the publishers' routes of the internal listener.

    `for_operators` makes a route that operators may read as well. It answers requests without a publisher's key.
    """

    def values(path: str, read: ReadValues) -> Route:
        async def own(
            request: Request, ingest: Ingest, _client_of: ClientOf, publisher: str
        ) -> Response | Refusal:
            return read(request, hub, Scope(ingest.publishers[publisher].channels))

        operators: Handle = for_operators(path, read).endpoint

        async def serve(request: Request) -> Response:
            if isinstance(ingest.identify(request.headers.getlist("authorization")), Refusal):
                return await operators(request)
            return await _respond(request, ingest, client_of, own)

        return Route(path, serve, methods=["GET"])

    async def one(request: Request) -> Response:
        return await _respond(request, ingest, client_of, _publish_one)

    async def batch(request: Request) -> Response:
        return await _respond(request, ingest, client_of, _publish_batch)

    async def subscribers(request: Request) -> Response:
        return await _respond(request, ingest, client_of, count)

    async def count(
        request: Request, ingest: Ingest, _client_of: ClientOf, publisher: str
    ) -> Response | Refusal:
        return count_subscribers(request, ingest, publisher, subscriber_count=hub.subscriber_count)

    async def no_upgrade(request: Request) -> Response:
        return await _respond(request, ingest, client_of, _no_upgrade)

    return [
        Route("/v1/ingest", no_upgrade, methods=["GET"]),
        Route("/v1/subscribers", subscribers, methods=["GET"]),
        values("/v1/channels/{channel:path}/value", one_value),
        values("/v1/values", many_values),
        Route("/v1/publish", one, methods=["POST"]),
        Route("/v1/publish/batch", batch, methods=["POST"]),
    ]


async def _respond(request: Request, ingest: Ingest, client_of: ClientOf, handle: Handler) -> Response:
    message: str | None = None
    authorization = request.headers.getlist("authorization")
    publisher = ingest.identify(authorization)
    if isinstance(publisher, Refusal):
        refusal, publisher = publisher, ""
    else:
        try:
            result = await handle(request, ingest, client_of, publisher)
            if isinstance(result, Response):
                return result
            refusal, message = result, result.detail
        except MalformedError as error:
            refusal, message = Refusal.of(error), error.detail
        except UnavailableError as error:
            refusal = Refusal.of(error)
    status = answer_for(refusal.reason).status
    ingest.deny(refusal, client_of(request), status=status, publisher=publisher, authorization=authorization)
    limited = refusal.reason is Reason.RATE_LIMITED
    wait_s = _retry_after_s(ingest, publisher) if limited else None
    return refusal_answer(refusal, message=message, retry_after_s=wait_s)


def _retry_after_s(ingest: Ingest, publisher: str) -> float:
    return jittered(max(1.0, ingest.quota(publisher).wait_s(time.monotonic())))


async def _no_upgrade(*_arguments: object) -> Refusal:
    return Refusal(reason=Reason.NOT_AN_UPGRADE)


async def _publish_one(
    request: Request, ingest: Ingest, client_of: ClientOf, publisher: str
) -> Response | Refusal:
    body = await read_body(request, max_bytes=MAX_PUBLICATION_BYTES, too_large=Reason.PUBLICATION_TOO_LARGE)
    result = await ingest.publish(publisher, body, address=client_of(request).address)
    return result if isinstance(result, Refusal) else json_answer(200, _accepted(result))


async def _publish_batch(
    request: Request, ingest: Ingest, client_of: ClientOf, publisher: str
) -> Response | Refusal:
    if refusal := ingest.over_quota(publisher):
        return refusal  # none of its messages would be published
    body = await read_body(request, max_bytes=MAX_BATCH_BYTES, too_large=Reason.PUBLICATION_TOO_LARGE)
    items = _items(body, request.headers.get("content-type", ""))
    client = client_of(request)
    begun: list[Begun] = []
    for item in items:
        try:
            begun.append(ingest.begin(publisher, item, address=client.address))
        except (MalformedError, UnavailableError) as error:
            begun.append(Refusal.of(error))
    results: list[Mapping[str, Any]] = []
    refusals = RefusalSummary()
    for one in begun:
        try:
            result = await ingest.end(publisher, one, address=client.address)
        except (MalformedError, UnavailableError) as error:
            result = Refusal.of(error)
        results.append(refusals.add(result) if isinstance(result, Refusal) else _accepted(result))
    refusals.record(ingest, client, publisher=publisher)
    answer = json_answer(200, {"results": results})
    if Reason.RATE_LIMITED in refusals:
        answer.headers["Retry-After"] = retry_after(_retry_after_s(ingest, publisher))
    return answer


def _items(body: bytes, content_type: str) -> list[bytes]:
    """Split a batch into its messages. Each is checked alone, so that a bad message does not stop the others."""
    if body.startswith(codecs.BOM_UTF8):
        raise MalformedError(
            "The body begins with a byte order mark (BOM): send UTF-8 without one.",
            reason=Reason.PUBLICATION_MALFORMED,
        )
    kind = content_type.split(";")[0].strip().lower()
    if kind == "application/x-ndjson":
        items = [line for line in body.split(b"\n") if line.strip()]
    elif kind == "application/json":
        envelope = _ENVELOPE.fullmatch(body)
        try:
            items = [bytes(raw) for raw in _messages.decode(envelope[1] if envelope else b"")]
        except (msgspec.DecodeError, RecursionError):
            raise MalformedError(
                'A batch is {"messages": […]} and nothing else.', reason=Reason.PUBLICATION_MALFORMED
            ) from None
    else:
        raise MalformedError(
            "Send a batch as application/json or application/x-ndjson.", reason=Reason.PUBLICATION_MALFORMED
        )
    if len(items) > MAX_BATCH:
        raise MalformedError(
            f"A batch has at most {MAX_BATCH} messages, this one {len(items)}.",
            reason=Reason.PUBLICATION_TOO_LARGE,
        )
    return items


def _accepted(result: Accepted) -> dict[str, Any]:
    position = {"epoch": result.position.epoch, "seq": result.position.seq}
    return {"channel": result.channel} | position | ({"dropped": result.dropped} if result.dropped else {})
