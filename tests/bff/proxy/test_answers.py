"""What comes down from the backend, over sockets: bodies, encodings, headers, redirects, tokens and fields."""

import asyncio
import gzip
import json
import tracemalloc
import zlib

import pytest

from relay.bff.proxy.answers import RefusedAnswerError, decompressed
from tests.support.backends import http_answer
from tests.support.proxied_backend import Conversation, Handler, ProxiedBackend, call, ok, page
from tests.support.raw_http import Answer, exchange, head, read_answer
from tests.support.relay_process import Relay

TEXT = "Content-Type: text/plain"
REFRESH = "refresh-token-0123456789"


def assert_own(answer: Answer, status: int, code: str) -> None:
    """Check that the answer is the relay's own, and that it names no host."""
    assert (answer.status, answer.code) == (status, code)
    assert answer.json.keys() == {"code", "message", "retryable"}
    assert b"127.0.0.1" not in answer.body
    assert answer.all("cache-control") == ["private, no-store"]


async def test_row_12_raw_bytes_keep_their_encoding(relay: Relay, backend: ProxiedBackend) -> None:
    """JSON is asked for as identity; a file that comes compressed goes on as it is, with its length and its ETag."""
    body = gzip.compress(b"x" * 1000)
    async with backend.answering(ok(body, TEXT, "Content-Encoding: gzip", 'ETag: "1"', "Digest: x")):
        answer = await call(relay, "/users", ("Accept-Encoding", "gzip, br"))
    assert backend.last.all("accept-encoding") == ["identity"]
    assert (answer.body, answer.all("content-encoding"), answer.all("etag")) == (body, ["gzip"], ['"1"'])
    assert answer.all("digest") == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "x-gzip"])
async def test_row_12_json_that_comes_compressed_is_decoded(
    relay: Relay, backend: ProxiedBackend, coding: str
) -> None:
    """Then neither its encoding nor its ETag goes on."""
    plain = json.dumps({"a": "x" * 1000}).encode()
    body = zlib.compress(plain) if coding == "deflate" else gzip.compress(plain)
    async with backend.answering(ok(body, f"Content-Encoding: {coding}", 'ETag: "1"')):
        answer = await call(relay, "/users")
    assert (answer.status, answer.body, answer.all("content-length")) == (200, plain, [str(len(plain))])
    assert answer.all("content-encoding") == answer.all("etag") == []


async def test_row_12_decompression_is_bounded(relay: Relay, backend: ProxiedBackend) -> None:
    """A bomb of 20 MB, a broken one, and an encoding that can't be read are 502."""
    bomb = gzip.compress(b'"' + b"x" * 20_000_000 + b'"')
    for body, coding in (
        (bomb, "gzip"),
        (b"\x1f\x8b", "gzip"),
        (gzip.compress(b"1") + b"x", "gzip"),
        (b"x", "br"),
    ):
        async with backend.answering(ok(body, f"Content-Encoding: {coding}")), asyncio.timeout(10):
            assert_own(await call(relay, "/users"), 502, "bad_gateway")


def test_row_12_a_bomb_takes_little_memory() -> None:
    """Of an answer that would become 50 MB, no more than the bound is ever made."""
    bomb = gzip.compress(b" " * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(RefusedAnswerError, match="more than 65536 bytes"):
            decompressed(bomb, most=65_536)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


async def test_row_12_a_filtered_body_has_no_old_length_or_etag(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """The fields are gone, every other character stays, and nothing tells of the bytes before."""
    before = b'{"ssn": "1", "users": [ {"score":1.10, "n":1.10} ]}'
    headers = ('ETag: "1"', "Accept-Ranges: bytes", "Digest: x", "Content-MD5: x")
    for coded, coding in ((before, "identity"), (gzip.compress(before), "gzip")):
        async with backend.answering(ok(coded, *headers, f"Content-Encoding: {coding}")):
            answer = await call(relay, "/users/admin/7")
        assert answer.body == b'{ "users": [ { "n":1.10} ]}'
        assert answer.all("content-length") == [str(len(answer.body))]
        names = {name for name, _ in answer.fields}
        assert names.isdisjoint({"etag", "accept-ranges", "digest", "content-md5", "content-encoding"})


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>", ("Content-Type: text/html",)),
        (500, b"<html>", ("Content-Type: text/html",)),
        (200, b'{"a":1,"a":2}', ()),
        (200, b'{"a":', ()),
        (200, b"\xff", ()),
        (200, b'{"a":1}', ("Content-Type: application/x-ndjson",)),
        (200, b"data: 1\n\n", ("Content-Type: text/event-stream",)),
        (206, b'{"a":1}', ("Content-Range: bytes 0-6/9",)),
        (200, b'"' + b"x" * 70_000 + b'"', ()),
        (200, b"{}", ("Content-Type: text/plain", "Content-Type: application/json")),
        (
            200,
            b"{}",
            (
                "Content-Type: application/json",
                "Content-Disposition: inline",
                "Content-Disposition: attachment",
            ),
        ),
    ],
)
async def test_what_can_not_be_filtered_is_502(
    relay: Relay, backend: ProxiedBackend, status: int, body: bytes, headers: tuple[str, ...]
) -> None:
    """On a route that removes fields, whatever the status: one JSON document that can be read, or nothing."""
    async with backend.answering(ok(body, *headers, status=status)):
        assert_own(await call(relay, "/users/admin"), 502, "bad_gateway")
    await relay.audited("proxy.denied", reason="answer_refused")


async def test_errors_of_the_backend_are_filtered_too(relay: Relay, backend: ProxiedBackend) -> None:
    """A 404 with a body is an answer like any other, also of a `+json` type."""
    async with backend.answering(ok(b'{"ssn":1}', "Content-Type: application/problem+json", status=404)):
        answer = await call(relay, "/users/admin")
    assert (answer.status, answer.body) == (404, b"{}")


@pytest.mark.parametrize(
    ("status", "method"), [(204, "GET"), (205, "GET"), (304, "GET"), (200, "HEAD"), (404, "HEAD")]
)
async def test_row_13_answers_without_a_body(
    relay: Relay, backend: ProxiedBackend, status: int, method: str
) -> None:
    """The connection can be used again after them, on both sides; on a route that removes fields as well."""
    text = f'HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nETag: "1"\r\n'
    text += (
        "Content-Length: 9\r\n\r\n"
        if method == "HEAD"
        else "Content-Length: 0\r\n\r\n"
        if status == 205
        else "\r\n"
    )
    async with backend.answering(text.encode()), asyncio.timeout(10):
        opened = backend.opened
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[0])
        for path in ("/users", "/users/admin", "/users"):
            writer.write(head(method, f"/api/proxy{path}", page(relay)))
            first = await reader.readuntil(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 %d " % status)
            assert (b"content-length: 9" in first) == (method == "HEAD" and path == "/users")
        writer.close()
        assert backend.opened <= opened + 1


async def test_row_13_a_1xx_is_never_the_answer(relay: Relay, backend: ProxiedBackend) -> None:
    """100, 102 and 103 are skipped, and 101 is none that was asked for. A hundred of them are no answer either."""
    early = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 X\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    )
    async with backend.answering(early + ok(b"[1]")):
        answer = await call(relay, "/users")
    assert (answer.status, answer.body) == (200, b"[1]")
    async with backend.answering(b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + ok(b"[1]")):
        assert_own(await call(relay, "/users"), 502, "bad_gateway")
    async with backend.answering(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
    ):
        assert_own(await call(relay, "/users"), 502, "bad_gateway")


async def test_row_16_the_backends_own_refusals_keep_retry_after(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """429 and 503 with their wait, their body and an allowed header; WWW-Authenticate stays here."""
    for status in (429, 503, 401):
        headers = ("Retry-After: 17", "X-Total: 3", "WWW-Authenticate: Basic", "X-Powered-By: x")
        async with backend.answering(ok(b'{"why":1}', *headers, status=status)):
            answer = await call(relay, "/users")
        assert (answer.status, answer.body, answer.all("retry-after")) == (status, b'{"why":1}', ["17"])
        assert answer.all("x-total") == ["3"]
        assert answer.all("www-authenticate") == answer.all("x-powered-by") == answer.all("set-cookie") == []


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "application/x-ndjson"])
async def test_row_17_streams_go_on_piece_by_piece(relay: Relay, backend: ProxiedBackend, kind: str) -> None:
    """The head first, then each event when it comes; a log-out ends it."""
    written, go_on, session = asyncio.Event(), asyncio.Event(), relay.session()

    async def stream(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        await go_on.wait()
        for number in range(3):
            await conversation.write(b"8\r\ndata: %d\n\r\n" % number)
            await go_on.wait()
        written.set()
        await conversation.gone()

    async with backend.serving(stream), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[0])
        writer.write(head("GET", "/api/proxy/users", page(relay, session)))
        first = await reader.readuntil(b"\r\n\r\n")
        assert b"x-accel-buffering: no\r\n" in first
        assert b"content-encoding" not in first
        go_on.set()
        for number in range(3):
            assert await reader.readuntil(b"\n\r\n") == b"8\r\ndata: %d\n\r\n" % number
        await written.wait()
        assert (await relay.logout(session)).status_code == 204
        assert await reader.read() == b""
        writer.close()
        await backend.all_closed()
    record = await relay.audited("proxy.denied", reason="session_revoked")
    assert record["url"]["path"] == "/users"


async def test_row_17_a_compressed_stream_is_502(relay: Relay, backend: ProxiedBackend) -> None:
    """It was asked for as it is, and nobody could search it."""
    async with backend.answering(
        ok(gzip.compress(b"x"), "Content-Type: text/event-stream", "Content-Encoding: gzip")
    ):
        assert_own(await call(relay, "/users"), 502, "bad_gateway")


async def test_row_24_redirects_are_passed_on_and_never_followed(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """A Location of the backend is one of the proxy; another one is 502."""
    for status in (201, 301, 302, 303, 307, 308):
        async with backend.answering(ok(b"", f"Location: {backend.origin}/users/7?x=1", status=status)):
            answer = await call(relay, "/users")
        assert (answer.status, answer.all("location")) == (status, ["/api/proxy/users/7?x=1"])
        assert len(backend.requests) == 1
    for location in ("http://evil.example/", "//evil.example", "javascript:alert(1)"):
        async with backend.answering(ok(b"", f"Location: {location}", status=302)):
            assert_own(await call(relay, "/users"), 502, "bad_gateway")


async def test_row_24_a_backend_that_is_down_is_502_without_its_name(relay: Relay) -> None:
    """Nobody listens there."""
    assert_own(await call(relay, "/users"), 502, "bad_gateway")
    record = await relay.audited("proxy.denied", reason="backend_failed")
    assert "127.0.0.1:" not in record["relay"]["detail"]


async def test_row_24_a_backend_that_hangs_is_504(relay: Relay, backend: ProxiedBackend) -> None:
    """Before its head, within it, and within a document, also if it sends a byte now and then."""
    document = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"

    def hanging(data: bytes, *, drip: bool) -> Handler:
        async def handler(conversation: Conversation) -> None:
            await conversation.request()
            await conversation.write(data)
            while drip:
                await conversation.write(b" ")
                await asyncio.sleep(0.3)  # being slow is the behaviour that is played here
            await conversation.gone()

        return handler

    async with asyncio.timeout(20):
        for data, drip in ((b"", False), (b"HTTP/1.1 200", False), (document, False), (document, True)):
            async with backend.serving(hanging(data, drip=drip)):
                assert_own(await call(relay, "/users"), 504, "backend_timeout")
                await backend.all_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 2000 X\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        http_answer(200, b"{}").replace(b"Content-Length: 2", b"Content-Length: 2\r\nContent-Length: 3"),
        http_answer(200, b"{}").replace(b"Content-Length: 2", b"Transfer-Encoding: gzip, chunked"),
        http_answer(200, b"{}", "Content-Type: application/json").replace(b"Length: 2", b"Length: 9"),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_502(
    relay: Relay, backend: ProxiedBackend, answer: bytes
) -> None:
    """Nothing of it reaches the browser, and the next call gets a good answer."""

    async def once(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.write(answer)

    async with backend.serving(once), asyncio.timeout(10):
        assert_own(await call(relay, "/users"), 502, "bad_gateway")
    async with backend.answering(ok()):
        assert (await call(relay, "/users")).status == 200


async def test_a_kept_connection_that_was_closed_is_replaced(relay: Relay, backend: ProxiedBackend) -> None:
    """The backend closes after each answer without a word: reads are repeated, a write is never sent twice."""

    async def two_calls(conversation: Conversation) -> None:
        backend.requests.append(await conversation.request())
        await conversation.write(ok())
        backend.requests.append(await conversation.head())

    async with backend.serving(two_calls), asyncio.timeout(10):
        assert [(await call(relay, "/users")).status for _ in range(4)] == [200] * 4
        assert (await call(relay, "/orders", method="POST", body=b"x")).status == 502
    assert [one.line.split()[0] for one in backend.requests].count("POST") == 1


async def test_a_broken_answer_is_cut(relay: Relay, backend: ProxiedBackend) -> None:
    """A browser must not take half of a file for the whole."""

    async def half(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
        )

    async with backend.serving(half), asyncio.timeout(10):
        assert (await call(relay, "/users")).status == 0


def stolen(session: str) -> list[str]:
    """Return texts that hold a token of the session."""
    escaped = "".join(f"\\u{ord(one):04x}" for one in session)
    return [session, REFRESH, f"Bearer {session}", escaped, REFRESH.replace("-", "\\u002d")]


async def test_row_29_a_document_with_a_token_is_502(relay: Relay, backend: ProxiedBackend) -> None:
    """The access token or the refresh token, as a value or a name, escaped or not, compressed or not."""
    session = relay.session()
    for text in stolen(session):
        for body in (f'{{"a":["{text}"]}}', f'{{"{text}":1}}', f'["{text}", 1'):
            for coded, headers in (
                (body.encode(), ()),
                (gzip.compress(body.encode()), ("Content-Encoding: gzip",)),
            ):
                async with backend.answering(ok(coded, *headers)):
                    assert_own(await call(relay, "/users", session=session), 502, "bad_gateway")
    record = await relay.audited("proxy.denied", reason="answer_with_token")
    assert session not in str(record)


async def test_row_29_a_token_in_a_header_is_502(relay: Relay, backend: ProxiedBackend) -> None:
    """A redirect with the token in its URL would put it into the address bar."""
    session = relay.session()
    async with backend.answering(ok(b"", f"Location: /users?token={session}", status=302)):
        assert_own(await call(relay, "/users", session=session), 502, "bad_gateway")


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("text/event-stream", b"data: "),
        ("application/x-ndjson", b"{}\n"),
        ("application/json", b" " * 100000 + b'"'),
        ("text/plain", b"x"),
        ("text/html", b"x" * 300000),
    ],
)
async def test_row_29_a_stream_with_a_token_is_cut(
    relay: Relay, backend: ProxiedBackend, kind: str, before: bytes
) -> None:
    """In two pieces: no byte of the token goes out. It is 502, or the connection is cut."""
    session = relay.session()

    async def handler(conversation: Conversation) -> None:
        await conversation.request()
        text = before + session.encode()
        size = len(text) + 100
        await conversation.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        await conversation.write(text[:-60])
        await conversation.write(text[-60:] + b"x" * 100)
        await conversation.gone()

    async with backend.serving(handler), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[0])
        writer.write(head("GET", "/api/proxy/users", [*page(relay, session), ("Connection", "close")]))
        try:
            got = await reader.read(-1)
        except ConnectionResetError:
            got = b""
        writer.close()
        await backend.all_closed()
    assert session[:40].encode() not in got
    assert b"\r\n0\r\n\r\n" not in got


@pytest.mark.parametrize(
    "dest",
    [
        "script",
        "style",
        "worker",
        "sharedworker",
        "serviceworker",
        "iframe",
        "frame",
        "embed",
        "object",
        "Script",
    ],
)
async def test_row_30_an_answer_can_not_run(relay: Relay, backend: ProxiedBackend, dest: str) -> None:
    """A browser says what it wants the answer for."""
    async with backend.answering(ok()):
        assert (await call(relay, "/users", ("Sec-Fetch-Dest", dest))).status == 403
    assert backend.requests == []


async def test_row_30_a_page_is_an_attachment(relay: Relay, backend: ProxiedBackend) -> None:
    """A navigation saves it; the relay's own policy is on every answer, and the backend's never."""
    policy = (
        "Content-Security-Policy: default-src *",
        "Cache-Control: public",
        "Cross-Origin-Resource-Policy: x",
    )
    html = ok(b"<script>alert(1)</script>", "Content-Type: text/html", "Content-Disposition: inline", *policy)
    for field in (
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "document"),
        ("Accept", "text/html,*/*"),
    ):
        async with backend.answering(html):
            answer = await call(relay, "/users", field)
        assert answer.all("content-disposition") == ["attachment"]
        assert answer.all("content-security-policy") == [
            "default-src 'none'; frame-ancestors 'none'; sandbox"
        ]
        assert answer.all("cache-control") == ["private, no-store"]
        assert answer.all("x-content-type-options") == ["nosniff"]
        assert answer.all("cross-origin-resource-policy") == ["same-origin"]


async def test_a_large_document_goes_on_piece_by_piece(relay: Relay, backend: ProxiedBackend) -> None:
    """Above bff.proxy.inspect_bytes it is not held, and arrives whole."""
    body = json.dumps(["x" * 100] * 20_000).encode()
    async with backend.answering(ok(body)), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[0])
        writer.write(head("GET", "/api/proxy/users", page(relay)))
        assert (await read_answer(reader)).body == body
        writer.close()
        half_closed = head("GET", "/api/proxy/users", page(relay))
        assert (await exchange(relay.ports[0], half_closed)).body == body
