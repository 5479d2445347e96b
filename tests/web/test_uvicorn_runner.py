"""The HTTP server's bounds: on a head's size and time, on bodies after their answer, on bytes that are not HTTP."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from relay.net.admission import AdmissionQueue, LoadShedder
from relay.net.unauthenticated import Bounds, UnauthenticatedConnections
from relay.web.bounded_protocol import MAX_PIPELINED, BoundedHttp, ConnectionOptions
from relay.web.head_limits import MAX_COOKIES, MAX_HEAD_BYTES, MAX_HEADERS
from relay.web.uvicorn_runner import HttpServer
from tests.support.raw_http import Answer, exchange, head, read_answer
from tests.support.raw_websocket import open_raw_websocket

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(request: Request) -> Response:
    """Answer with the body's length, the header X and the path."""
    body = await request.body()
    return Response(f"{len(body)} {request.headers.get('x', '')} {request.url.path}")


async def hang(request: Request) -> Response:
    """Answer never, or never whole."""
    if request.query_params:

        async def half() -> AsyncIterator[bytes]:
            yield b"half"
            await asyncio.Event().wait()

        return StreamingResponse(half())
    await asyncio.Event().wait()
    return Response()


async def hang_socket(websocket: WebSocket) -> None:
    """Do not answer the handshake, or do nothing after it."""
    if websocket.query_params:
        await websocket.accept()
    await asyncio.Event().wait()


async def deaf(_request: Request) -> Response:
    """Answer without reading the body."""
    return Response(status_code=403)


@contextlib.asynccontextmanager
async def serving(
    options: ConnectionOptions | None = None, *, max_frame_bytes: int | None = None
) -> AsyncIterator[int]:
    """Run the server on a free port, in this process."""
    app = Starlette(
        routes=[
            Route("/echo", echo, methods=["GET", "POST"]),
            Route("/deaf", deaf, methods=["POST"]),
            Route("/hang", hang),
            WebSocketRoute("/hang", hang_socket),
        ]
    )
    sock = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, sock, options, max_frame_bytes=max_frame_bytes)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started()
        try:
            yield sock.getsockname()[1]
        finally:
            server.stop()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server's port."""
    async with serving() as port:
        yield port


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits a fifth of a second only for a head."""
    monkeypatch.setattr(BoundedHttp, "head_within_s", 0.2)


async def ask(port: int, method: str, path: str, *fields: tuple[str, str], body: bytes = b"") -> Answer:
    """Send one request with a Host and return the answer."""
    return await exchange(port, head(method, path, [("Host", "x"), *fields]) + body)


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait for the other side's end of the connection."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            await reader.read()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)  # slowness is the attack


async def attack(port: int, data: bytes) -> Answer:
    """Send some bytes and then one after the other; return the first answer, once the connection has ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    drip = asyncio.create_task(trickle(writer))
    answer = await read_answer(reader)
    await ended(reader)
    drip.cancel()
    writer.close()
    return answer


@pytest.mark.usefixtures("hasty")
async def test_a_silent_connection_is_closed(port: int) -> None:
    """A connection that sends nothing ends, without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await ended(reader)
    writer.close()


@pytest.mark.usefixtures("hasty")
async def test_a_head_that_trickles_in_is_cut_off(port: int) -> None:
    """A new byte of a head does not extend its time."""
    assert (await attack(port, b"GET /echo HTTP/1.1\r\nHost: x\r\nX: ")).status == 0


@pytest.mark.usefixtures("hasty")
async def test_a_second_head_has_no_more_time_than_the_first(port: int) -> None:
    """A kept connection that begins a second request and does not end it is closed."""
    first = head("GET", "/echo", [("Host", "x")])
    assert (await attack(port, first + b"GET /echo HTTP/1.1\r\nX: ")).status == 200


@pytest.mark.usefixtures("hasty")
async def test_a_body_after_its_answer_is_cut_off(port: int) -> None:
    """A refused client that continues to send its body byte by byte gets one answer and is disconnected."""
    data = head("POST", "/deaf", [("Host", "x"), ("Content-Length", "1000000")])
    assert (await attack(port, data)).status == 403


@pytest.mark.usefixtures("hasty")
async def test_a_body_that_is_read_has_its_own_time(port: int) -> None:
    """The timer of the head stops with the head. The route limits the time of a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("POST", "/echo", [("Host", "x"), ("Content-Length", "20")]))
    for _ in range(20):
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)  # longer than a head may take, in all
    assert (await read_answer(reader)).body.startswith(b"20 ")
    writer.close()


@pytest.mark.parametrize("chunk", [MAX_HEAD_BYTES * 4, 1000])
async def test_a_large_head_is_refused(port: int, chunk: int) -> None:
    """A head above the limit gets 431, at once or in pieces, before it is looked at."""
    value = "a" * MAX_HEAD_BYTES
    data = head("GET", "/echo", [("Host", "x"), ("X", value)])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for start in range(0, len(data), chunk):
        writer.write(data[start : start + chunk])
        await writer.drain()
    answer = await read_answer(reader)
    assert (answer.status, answer.code) == (431, "too_large")
    await ended(reader)
    writer.close()


async def test_an_endless_head_is_not_kept(port: int) -> None:
    """Of a header that never ends no more is kept than the limit and one read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /echo HTTP/1.1\r\nX: ")
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 100_000_000 and not reader.at_eof():
            writer.write(b"a" * 65_536)
            await writer.drain()
            sent += 65_536
    assert sent < 20_000_000, "what the kernels on both sides hold, and not what the server took"
    writer.close()


async def test_many_headers_are_one_large_head(port: int) -> None:
    """Thousands of small headers count together, and are refused in the same way."""
    fields = [(f"X-{index}", "a") for index in range(5000)]
    assert (await ask(port, "GET", "/echo", *fields)).status == 431


async def test_an_ordinary_large_head_passes(port: int) -> None:
    """20 KB of cookies, as large sites have them, are served, also on a kept connection after others."""
    request = head("GET", "/echo", [("Host", "x"), ("X", "1"), ("Cookie", "a" * 20_000)])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request * 5)
    for _ in range(5):
        assert (await read_answer(reader)).body == b"0 1 /echo"
    writer.close()


async def test_bodies_do_not_count_as_heads(port: int) -> None:
    """Large bodies one after the other on one connection, each followed by the next head in the same bytes."""
    body = b"b" * 300_000
    request = head("POST", "/echo", [("Host", "x"), ("Content-Length", str(len(body)))]) + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request * 4)
    for _ in range(4):
        assert (await read_answer(reader)).body == b"300000  /echo"
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
async def test_silent_connections_of_one_address_leave_room(sent: bytes) -> None:
    """They are cut off when the listener is crowded. Each counts until it has sent a request or is gone."""
    unauthenticated = UnauthenticatedConnections(Bounds(limit=2, crowd=10))
    async with serving(ConnectionOptions(unauthenticated=unauthenticated)) as port, asyncio.timeout(20):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        for _, writer in silent:
            writer.write(sent)
        while unauthenticated.total < 10:
            await turn()
        assert (await ask(port, "GET", "/echo")).status == 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        writer.write(head("GET", "/echo", [("Host", "x")]))
        assert (await read_answer(reader)).status == 200
        for _, one in [*silent, (reader, writer)]:
            one.close()
        while unauthenticated.total:
            await turn()
        assert (await ask(port, "GET", "/echo")).status == 200


async def test_few_requests_are_read_before_their_turn(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 pipelined requests nine are in memory at a time, and each gets its answer in order."""
    waiting: list[int] = []
    begin = BoundedHttp.on_headers_complete

    def watched(self: BoundedHttp) -> None:
        begin(self)
        waiting.append(len(self.pipeline))

    monkeypatch.setattr(BoundedHttp, "on_headers_complete", watched)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(1000):
        writer.write(head("GET", "/echo", [("Host", "x"), ("X", str(number))]))
    for number in range(1000):
        assert (await read_answer(reader)).body == b"0 %d /echo" % number
    assert max(waiting) == MAX_PIPELINED
    writer.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_pipelined_bodies_are_answered_in_order(port: int, chunked: bool) -> None:
    """Twenty requests with bodies in one write get twenty answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(20):
        body = b"b" * (number * 1000)
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
        if chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        writer.write(head("POST", "/echo", [("Host", "x"), ("X", str(number)), framing]) + body)
    for number in range(20):
        assert (await read_answer(reader)).body == b"%d %d /echo" % (number * 1000, number)
    writer.close()


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (head("GET", "/echo", [("X", "a" * MAX_HEAD_BYTES)]), 431),
        (head("POST", "/echo", [("Host", "x"), ("Transfer-Encoding", "chunked")]) + b"ZZ\r\n", 400),
    ],
)
async def test_what_is_refused_is_answered_in_its_turn(port: int, broken: bytes, status: int) -> None:
    """The good requests before a bad one get their answers first, and the connection ends after the refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("GET", "/echo", [("Host", "x")]) * 5 + broken + head("GET", "/echo", [("Host", "x")]))
    answers = [(await read_answer(reader)).status for _ in range(6)]
    assert answers == [200] * 5 + [status]
    await ended(reader)
    writer.close()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(f"X-{number}", "a") for number in range(MAX_HEADERS - 1)], 200),
        ([(f"X-{number}", "a") for number in range(MAX_HEADERS)], 431),
        ([("Cookie", "a=b; " * (MAX_COOKIES - 1) + "a=b")], 200),
        ([("Cookie", "a=b; " * MAX_COOKIES + "a=b")], 431),
        ([("Cookie", "a=b; " * 50 + "a=b")] * 5, 431),
    ],
)
async def test_headers_and_cookies_are_counted(port: int, fields: list[tuple[str, str]], status: int) -> None:
    """A hundred headers and two hundred cookies pass, one more does not, whatever their size."""
    assert (await ask(port, "GET", "/echo", *fields)).status == status


async def turn() -> None:
    """Let some time pass: a connection is freed some turns after its end, and there is nothing to await."""
    await asyncio.sleep(0.01)


async def test_a_connection_with_requests_that_were_never_begun_is_freed(port: int) -> None:
    """Reference counting frees it. Full runs of the cycle collector are put off for hours."""
    gc.collect()
    gc.disable()
    try:
        waiting = head("POST", "/echo", [("Host", "x"), ("Content-Length", "9")])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("GET", "/echo", [("Host", "x")]))
        await read_answer(reader)
        address = writer.get_extra_info("sockname")  # connections of other tests may not be freed yet
        (connection,) = (
            weakref.ref(one)
            for one in gc.get_objects()
            if isinstance(one, BoundedHttp) and one.client == address
        )
        slow = head("POST", "/echo", [("Host", "x"), ("Content-Length", "3")])
        writer.write(slow + b"123" + head("GET", "/echo", [("Host", "x")]) * 5 + waiting)
        writer.transport.abort()
        async with asyncio.timeout(10):
            while connection() is not None:
                await turn()
    finally:
        gc.enable()


@pytest.mark.parametrize("pieces", [1, 40])
async def test_trailers_are_no_headers(port: int, pieces: int) -> None:
    """No proxy has checked them, so they are dropped. A connection with endless trailers is ended."""
    body = head("POST", "/echo", [("Host", "x"), ("Transfer-Encoding", "chunked")]) + b"3\r\nabc\r\n0\r\n"
    answer = await exchange(port, body + b"X: trailer\r\n\r\n")
    assert answer.body == b"3  /echo"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(body)
    with contextlib.suppress(ConnectionError):
        for number in range(100 * pieces):
            writer.write(b"X-%d: %s\r\n" % (number, b"t" * (40_000 // pieces)))
            await writer.drain()
    await ended(reader)
    writer.close()


async def test_a_large_body_after_a_refusal_is_thrown_away(port: int) -> None:
    """A client that sends all of its 5 MB before it reads still gets its answer, and the next one."""
    body = b"b" * 5_000_000
    request = head("POST", "/deaf", [("Host", "x"), ("Content-Length", str(len(body)))]) + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    assert (await read_answer(reader)).status == 403
    writer.write(head("GET", "/echo", [("Host", "x")]))
    assert (await read_answer(reader)).status == 200
    writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /echo HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nA\x00B: c\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
async def test_what_is_no_http_gets_400(port: int, data: bytes) -> None:
    """Garbage, smuggling and TLS to a plain port get the common error, and the connection ends."""
    answer = await exchange(port, data)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.all("cache-control") == ["private, no-store"]
    assert answer.all("connection") == ["close"]


async def test_an_offered_upgrade_is_ignored(port: int) -> None:
    """A request that offers WebSocket or HTTP/2 gets an answer in HTTP/1.1 (RFC 9110 §7.8)."""
    for protocol in ("websocket", "h2c"):
        answer = await ask(port, "GET", "/echo", ("Connection", "Upgrade"), ("Upgrade", protocol))
        assert (answer.status, answer.body) == (200, b"0  /echo")


async def test_nothing_names_the_software(port: int) -> None:
    """There is no Server header, so an answer tells no version."""
    assert (await ask(port, "GET", "/echo")).all("server") == []


async def test_a_crowd_is_told_to_come_back() -> None:
    """Connections that would wait too long get 503 at once, in the form of all errors, and are closed.

    When the queue is short again, connections are served as before.
    """
    shedder = LoadShedder(accept_queue=AdmissionQueue(), admission_queue=AdmissionQueue(1))
    async with serving(ConnectionOptions(accept_queue=shedder.accept_queue, shedder=shedder)) as port:
        shedder.admission_queue.per_s = 0.1
        stuck = [asyncio.create_task(shedder.admission_queue.enter()) for _ in range(3)]
        shedder.admission_queue._run_turn = lambda: None  # type: ignore[method-assign]  # nothing is admitted
        await asyncio.sleep(0)
        answers = [await ask(port, "GET", "/echo") for _ in range(3)]
        assert [answer.status for answer in answers] == [503] * 3
        assert answers[0].json == {
            "code": "unavailable",
            "message": "More requests came than can be served now. Try again after the time in Retry-After.",
            "retryable": True,
        }
        waits = [int(answer.all("retry-after")[0]) for answer in answers]
        assert waits == sorted(waits)
        assert waits[-1] > waits[0] > 2
        for task in stuck:
            task.cancel()
        shedder.admission_queue.per_s = 1000.0
        assert (await ask(port, "GET", "/echo")).status == 200
    assert shedder.refused == 3


async def test_a_request_that_outlives_the_server_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    """503, or a cut connection if a part of the answer has gone out; and no traceback in the log."""
    async with contextlib.AsyncExitStack() as stack:
        async with serving() as port:
            clients = []
            for path in ("/hang", "/hang?half"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(head("GET", path, [("Host", "x")]))
                clients.append(reader)
            await clients[1].readuntil(b"half")
        answer = await read_answer(clients[0])
        assert (answer.status, answer.code, answer.json["retryable"]) == (503, "going_away", True)
        assert await clients[1].read() == b"\r\n"
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(("path", "status"), [("/hang", 500), ("/hang?open", 101)])
async def test_a_websocket_whose_handler_outlives_the_server_ends(
    path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """uvicorn cancels the handler after a second. That is an end like any other: the log has no traceback of it."""
    async with contextlib.AsyncExitStack() as stack:
        async with serving(max_frame_bytes=1000) as port:
            wire = await stack.enter_async_context(open_raw_websocket(port, path, origin="http://x"))
            if "open" in path:
                assert await wire.shake() == status
            assert (await ask(port, "GET", "/echo")).status == 200  # by now the handler has begun
        if "open" not in path:
            assert await wire.shake() == status
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["Cancel 1 running task(s), timeout graceful shutdown exceeded"]
