"""Request bodies: bounds on size and time, and strict JSON."""

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from relay.core.closes import answer_for
from relay.core.errors import MalformedError, Reason
from relay.web import bodies
from tests.support.http_requests import make_request

JSON = ("Content-Type", "application/json")


async def raw(request: Request) -> bytes:
    """Read at most ten bytes."""
    return await bodies.read_body(request, max_bytes=10, too_large=Reason.PUBLICATION_TOO_LARGE)


async def json_of(body: bytes, *fields: tuple[str, str]) -> dict[str, Any]:
    """Read an object of at most a thousand bytes."""
    return await bodies.read_json_object(make_request(*fields, chunks=[body]), max_bytes=1000)


async def test_a_body_is_put_together() -> None:
    """Chunks are joined; none are an empty body."""
    assert await raw(make_request(chunks=[b"abc", b"", b"defghij"])) == b"abcdefghij"
    assert await raw(make_request()) == b""


@pytest.mark.parametrize("length", ["11", "00000000011", "5000000", "9" * 19])
async def test_an_announced_length_is_enough_to_refuse(length: str) -> None:
    """A body whose Content-Length is too long is not read."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    request = Request(make_request(("Content-Length", length)).scope, receive)
    with pytest.raises(MalformedError) as refused:
        await raw(request)
    assert refused.value.reason is Reason.PUBLICATION_TOO_LARGE


@pytest.mark.parametrize("length", ["1", "-1", "x", "", "\xb2", "1" * 5000, "1.5", " 3"])
async def test_a_length_that_lies_does_not_help(length: str) -> None:
    """The bytes that come are counted, for any Content-Length in any script's digits."""
    request = make_request(("Content-Length", length), chunks=[b"abcdef", b"ghijkl"])
    with pytest.raises(MalformedError) as refused:
        await raw(request)
    assert refused.value.reason is Reason.PUBLICATION_TOO_LARGE


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_a_compressed_body_is_named(encoding: str) -> None:
    """A body with a Content-Encoding is refused with 415 before it is read, on each route that reads one."""
    request = make_request(("Content-Encoding", encoding), chunks=[b"\x1f\x8b"])
    with pytest.raises(MalformedError, match=f"Content-Encoding {encoding}") as refused:
        await raw(request)
    assert refused.value.reason is Reason.BODY_ENCODED
    assert answer_for(Reason.BODY_ENCODED).status == 415
    assert await raw(make_request(("Content-Encoding", "identity"), chunks=[b"{}"])) == b"{}"


async def test_a_byte_order_mark_is_named() -> None:
    """A body that begins with a BOM gets an error that says so."""
    with pytest.raises(MalformedError, match="byte order mark"):
        await json_of(b"\xef\xbb\xbf{}", JSON)


async def test_a_body_that_breaks_off_is_malformed() -> None:
    """A client that leaves within its body is at fault, and the relay logs no error of its own."""
    with pytest.raises(MalformedError) as refused:
        await raw(make_request(chunks=[b"abc"], breaks_off=True))
    assert refused.value.reason is Reason.REQUEST_MALFORMED


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has some seconds in all, however slowly its bytes come."""
    monkeypatch.setattr(bodies, "BODY_WITHIN_S", 0.05)

    async def receive() -> Message:
        await asyncio.sleep(0.01)  # slowness is the attack
        return {"type": "http.request", "body": b"", "more_body": True}

    with pytest.raises(MalformedError, match="did not come within"):
        await raw(Request(make_request().scope, receive))


async def test_objects_are_read_and_nothing_else() -> None:
    """A JSON object with its type, or no body at all."""
    assert await json_of(b'{"a":[1]}', JSON) == {"a": [1]}
    assert await json_of(b"{}", ("Content-Type", "Application/JSON; charset=utf-8")) == {}
    assert await json_of(b"") == {}
    assert await json_of(b"", ("Content-Type", "text/plain")) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'"a"',
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":' + b"1" * 900 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b"[" * 900,
        b"a=b",
        b" ",
    ],
)
async def test_what_is_no_strict_object_is_malformed(body: bytes) -> None:
    """Other JSON, loose JSON, other encodings and garbage get an error that says why."""
    with pytest.raises(MalformedError, match="not a JSON object"):
        await json_of(body, JSON)


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "json"]
)
async def test_only_json_is_taken(kind: str) -> None:
    """Any page can send a form without a CORS preflight, so its content is not looked at."""
    with pytest.raises(MalformedError, match="application/json"):
        await json_of(b"{}", ("Content-Type", kind))
    with pytest.raises(MalformedError, match="application/json"):
        await json_of(b"{}")


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f'{{"a":"{text}"}}'.encode()))
async def test_any_bytes_are_an_object_or_malformed(body: bytes) -> None:
    """No body makes the reader fail in another way."""
    with contextlib.suppress(MalformedError):
        assert isinstance(await json_of(body, JSON), dict)
