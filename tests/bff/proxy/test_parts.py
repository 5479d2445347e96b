"""Parts of documents (Range, 206): they pass, and no token of the session goes out in pieces."""

import pytest

from tests.support.proxied_backend import ProxiedBackend, call, ok
from tests.support.relay_process import Relay

TEXT = "Content-Type: text/plain"


async def test_row_21_parts_pass_where_nothing_is_filtered(relay: Relay, backend: ProxiedBackend) -> None:
    """206 with its range, 416, and the headers that ask for them."""
    fields = (("Range", "bytes=0-3"), ("If-Range", '"1"'))
    async with backend.answering(
        ok(b"abcd", TEXT, "Content-Range: bytes 0-3/9", "Accept-Ranges: bytes", status=206)
    ):
        answer = await call(relay, "/users", *fields)
    assert (answer.status, answer.body) == (206, b"abcd")
    assert (answer.all("content-range"), answer.all("accept-ranges")) == (["bytes 0-3/9"], ["bytes"])
    assert (backend.last.all("range"), backend.last.all("if-range")) == (["bytes=0-3"], ['"1"'])
    async with backend.answering(ok(b"", TEXT, "Content-Range: bytes */9", status=416)):
        answer = await call(relay, "/users", *fields)
    assert (answer.status, answer.all("content-range")) == (416, ["bytes */9"])


async def test_row_21_several_parts_are_asked_for_as_a_whole(relay: Relay, backend: ProxiedBackend) -> None:
    """A backend may ignore Range. An answer of several parts could be cut in a token at each of them: 502."""
    for fields in ([("Range", "bytes=0-1,3-4")], [("Range", "bytes=0-1"), ("Range", "bytes=3-4")]):
        async with backend.answering(ok(b"abcdefghi", TEXT)):
            assert (await call(relay, "/users", *fields)).status == 200
        assert backend.last.all("range") == []
    async with backend.answering(ok(b"x", "Content-Type: multipart/byteranges; boundary=x", status=206)):
        answer = await call(relay, "/users", ("Range", "bytes=0-1"))
    assert (answer.status, answer.code) == (502, "bad_gateway")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-ndjson"])
async def test_row_29_a_token_can_not_be_read_in_parts(
    relay: Relay, backend: ProxiedBackend, kind: str
) -> None:
    """However a script cuts it: of each part at most a few bytes at an end go out. Parts of other texts pass."""
    session = relay.session()
    document = f'{{"name": "somebody", "echo": "Bearer {session}", "more": "text"}}'.encode()
    start = document.index(session.encode())
    whole = await parts(relay, backend, session, document, kind, [(0, len(document))])
    assert whole == b""
    for size in (1, 7, 20, 64, 300):
        cuts = [(max(0, at), at + size) for at in range(start - size + 5, start + len(session), size)][:6]
        cuts += [(at, at + size) for at in (start + 3, start + 100, start + len(session) - size)]
        got = await parts(relay, backend, session, document, kind, cuts)
        assert not any(got[at : at + 8] in session.encode() for at in range(len(got) - 7)), (size, got)
    other = document.replace(session.encode(), b"*" * 200)
    assert await parts(relay, backend, session, other, kind, [(0, 50), (50, 51), (51, 270)]) == other[:270]


async def parts(
    relay: Relay,
    backend: ProxiedBackend,
    session: str,
    document: bytes,
    kind: str,
    cuts: list[tuple[int, int]],
) -> bytes:
    """Ask for these parts of a document, and return what came of them."""
    got = b""
    for begin, end in cuts:
        part = document[begin:end]
        span = f"Content-Range: bytes {begin}-{end - 1}/{len(document)}"
        async with backend.answering(ok(part, f"Content-Type: {kind}", span, status=206)):
            answer = await call(relay, "/users", ("Range", f"bytes={begin}-{end - 1}"), session=session)
        assert answer.status in (206, 502, 0), answer
        got += answer.body if answer.status == 206 else b""
    return got
