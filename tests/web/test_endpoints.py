"""Endpoints: headers that are read once say what Starlette's say, and the short way leads where the router leads."""

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from relay.web.endpoints import DirectRoutes, Endpoint, IndexedHeaders

NAMES = ["host", "origin", "cookie", "authorization", "x-relay-csrf"]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode), st.binary(max_size=6))),
    st.sampled_from([*NAMES, "Origin", "AUTHORIZATION", "absent"]),
)
def test_indexed_headers_say_what_starlettes_say(raw: list[tuple[bytes, bytes]], name: str) -> None:
    """Each question gets the same answer, also about headers that come twice or not at all."""
    ours, judge = IndexedHeaders(raw), Headers(raw=list(raw))
    assert ours.getlist(name) == judge.getlist(name)
    assert ours.get(name) == judge.get(name)
    assert ours.get(name, "-") == judge.get(name, "-")
    assert (name in ours) is (name in judge)
    assert (ours.raw, len(ours), ours.items(), list(ours)) == (
        judge.raw,
        len(judge),
        judge.items(),
        list(judge),
    )
    if name in judge:
        assert ours[name] == judge[name]
    else:
        with pytest.raises(KeyError):
            ours[name]


def said(text: str) -> Endpoint:
    """Return an endpoint that says this, and the header X-Said of its request."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse(f"{text} {request.headers.get('x-said', '')}")

    return Endpoint(answer)


async def by_function(_request: Request) -> Response:
    """Answer by a plain function, which the router calls."""
    return PlainTextResponse("function ")


ROUTES: list[BaseRoute] = [
    Route("/one", said("one"), methods=["POST"]),
    Route("/both", said("get"), methods=["GET"]),
    Route("/both", said("post"), methods=["POST"]),
    Route("/both", said("never"), methods=["POST"]),
    Route("/function", by_function, methods=["POST"]),
    Route("/{name}", said("any"), methods=["POST"]),
    Route("/late", said("late"), methods=["GET"]),
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize("path", ["/one", "/both", "/function", "/other", "/late", "/one/", "/On%65", "/a/b"])
async def test_the_short_way_leads_where_the_router_leads(method: str, path: str) -> None:
    """Status, headers and body are those of the same application without the middleware."""
    plain = Starlette(routes=ROUTES)
    short = Starlette(routes=ROUTES, middleware=[Middleware(DirectRoutes, routes=ROUTES)])

    async def answer_of(app: Any) -> tuple[int, httpx.Headers, bytes]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            answer = await client.request(method, path, headers={"X-Said": "hello"})
        return answer.status_code, answer.headers, answer.content

    assert await answer_of(short) == await answer_of(plain)
