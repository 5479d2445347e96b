"""Uploads and downloads with back-pressure, early answers, and clients that go in the middle."""

import asyncio
import itertools

import psutil

from tests.support.proxied_backend import Conversation, ProxiedBackend, call, ok, page, reset
from tests.support.raw_http import head, read_answer
from tests.support.relay_process import Relay

OK = b"HTTP/1.1 200 OK\r\n"
BEGUN = {
    "within the head": OK + b"Content-",
    "within a document": OK + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    "within a stream": OK + b"Content-Type: text/event-stream\r\n\r\ndata: 1\n\n",
}
PIECE = bytes(range(256)) * 256


async def connect(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the relay."""
    return await asyncio.open_connection("127.0.0.1", relay.ports[0])


async def test_row_19_an_upload_is_streamed_byte_for_byte(relay: Relay, backend: ProxiedBackend) -> None:
    """The first piece arrives before the last one is sent; with a length and chunked."""
    for framing in (("Content-Length", str(len(PIECE) * 3)), ("Transfer-Encoding", "chunked")):
        first, done, got = asyncio.Event(), asyncio.Event(), bytearray()

        async def handler(conversation: Conversation) -> None:
            seen = await conversation.head()
            while len(got) < len(PIECE) * 3:  # noqa: B023  # called within the same turn
                if seen.all("transfer-encoding"):
                    size = int(await conversation.reader.readline(), 16)
                    got.extend(await conversation.reader.readexactly(size))  # noqa: B023  # called within the same turn
                    await conversation.reader.readline()
                else:
                    got.extend(await conversation.reader.read(1000))  # noqa: B023  # called within the same turn
                first.set()  # noqa: B023  # called within the same turn
            await conversation.write(ok())
            done.set()  # noqa: B023  # called within the same turn
            await conversation.gone()

        async with backend.serving(handler), asyncio.timeout(10):
            reader, writer = await connect(relay)
            writer.write(head("POST", "/api/proxy/orders", [*page(relay), framing]))
            for _ in range(3):
                chunk = PIECE if framing[0] == "Content-Length" else b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
                writer.write(chunk)
                await first.wait()
            if framing[0] != "Content-Length":
                writer.write(b"0\r\n\r\n")
            assert (await read_answer(reader)).status == 200
            await done.wait()
            assert bytes(got) == PIECE * 3
            writer.close()


async def test_row_19_a_body_that_is_too_large_is_413(relay: Relay, backend: ProxiedBackend) -> None:
    """By its length before anything is sent, and a chunked one as soon as it is too long."""
    async with backend.serving(lambda conversation: conversation.gone()), asyncio.timeout(10):
        answer = await call(relay, "/orders", ("Content-Length", "4000001"), method="POST")
        assert (answer.status, answer.code) == (413, "too_large")
        reader, writer = await connect(relay)
        writer.write(head("POST", "/api/proxy/orders", [*page(relay), ("Transfer-Encoding", "chunked")]))
        for _ in range(70):
            writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        assert (await read_answer(reader)).status == 413
        writer.close()
        await backend.all_closed()


async def test_row_19_an_early_answer_stops_the_upload(relay: Relay, backend: ProxiedBackend) -> None:
    """The backend refuses after the head and closes, or stays open; the client has its answer within a second.

    Twenty times: an answer that is followed by a reset must not be lost.
    """
    for number, close in itertools.product(range(10), (True, False)):

        async def handler(conversation: Conversation) -> None:
            await conversation.head()
            await conversation.reader.read(10)
            await conversation.write(ok(b'{"too":"large"}', status=413))
            if close:  # noqa: B023  # called within the same turn
                conversation.writer.transport.abort()
            await conversation.gone()

        async with backend.serving(handler):
            reader, writer = await connect(relay)
            writer.write(head("POST", "/api/proxy/orders", [*page(relay), ("Content-Length", "3000000")]))
            writer.write(PIECE * (number + 1))
            async with asyncio.timeout(2):
                answer = await read_answer(reader)
            assert (answer.status, answer.body) == (413, b'{"too":"large"}'), number
            writer.close()


async def test_an_upload_that_stalls_is_408(relay: Relay, backend: ProxiedBackend) -> None:
    """The client sends no more, and bff.proxy.idle_s passes: the connection to the backend is closed."""
    async with backend.serving(lambda conversation: conversation.gone()), asyncio.timeout(10):
        reader, writer = await connect(relay)
        writer.write(head("POST", "/api/proxy/orders", [*page(relay), ("Content-Length", "100")]) + b"x")
        answer = await read_answer(reader)
        assert (answer.status, answer.code) == (408, "body_timeout")
        writer.close()
        await backend.all_closed()


async def test_transfers_have_back_pressure(relay: Relay, backend: ProxiedBackend) -> None:
    """A download of 200 MB to a client that does not read, and then does, needs the memory of a few pieces."""
    assert relay.process is not None
    process = psutil.Process(relay.process.pid)
    size = 200_000_000
    sent = 0

    async def handler(conversation: Conversation) -> None:
        nonlocal sent
        await conversation.request()
        await conversation.write(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await conversation.write(b"x" * 100_000)
            sent += 100_000
        await conversation.gone()

    async with backend.serving(handler), asyncio.timeout(60):
        before = process.memory_info().rss
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.ports[0], limit=1000)
        writer.write(head("GET", "/api/proxy/users", page(relay)))
        await reader.readuntil(b"\r\n\r\n")
        last = -1
        while sent != last:  # until nothing moves any more
            last = sent
            await asyncio.sleep(0.2)  # there is nothing to await: nothing happens
        assert sent < 50_000_000
        got = 0
        while got < size:
            got += len(await reader.read(1_000_000))
        assert process.memory_info().rss - before < 32 << 20
        writer.close()


async def test_row_18_a_client_that_has_gone_ends_the_upstream_call(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """200 broken requests in every phase on a pool of 4 connections, and the next call is answered at once."""
    phase = ""
    reached = asyncio.Event()

    async def handler(conversation: Conversation) -> None:
        await conversation.head()
        await conversation.write(BEGUN.get(phase, b""))
        if phase == "uploading":
            await conversation.reader.read(10)
        elif phase == "stuck upload":
            conversation.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one of a socket
            reached.set()
            await asyncio.sleep(0.7)  # the relay is left without a word, and must notice by itself
            conversation.writer.transport.resume_reading()  # type: ignore[attr-defined]  # it is one of a socket
        reached.set()
        await conversation.gone()

    async def broken(name: str, *, by_reset: bool) -> None:
        nonlocal phase
        phase = name
        reached.clear()
        _, writer = await connect(relay)
        upload = "upload" in name
        framing = [("Content-Length", "3000000")] if upload else []
        writer.write(head("POST" if upload else "GET", "/api/proxy/orders", [*page(relay), *framing]))
        if upload:
            writer.write(PIECE * (30 if name == "stuck upload" else 1))
        await reached.wait()
        if by_reset:
            reset(writer)
        else:
            writer.close()
        async with asyncio.timeout(2):
            await backend.all_closed()

    async with backend.serving(handler):
        names = ["uploading", "waiting", "within the head", "within a document", "within a stream"]
        for number in range(195):
            await broken(names[number % len(names)], by_reset=number % 2 == 0)
        for number in range(5):
            await broken("stuck upload", by_reset=number % 2 == 0)
    async with backend.answering(ok()), asyncio.timeout(5):
        for _ in range(8):
            assert (await call(relay, "/users")).status == 200


async def test_a_client_that_waits_for_a_connection_and_goes_uses_none(
    relay: Relay, backend: ProxiedBackend
) -> None:
    """More calls than connections: those that waited and went leave no trace, and a further one is 503 in time."""
    waiting = asyncio.Semaphore(0)

    async def hang(conversation: Conversation) -> None:
        await conversation.request()
        waiting.release()
        await conversation.gone()

    async with backend.serving(hang), asyncio.timeout(20):
        holders = []
        for _ in range(4):
            reader, writer = await connect(relay)
            writer.write(head("POST", "/api/proxy/orders", [*page(relay), ("Content-Length", "1")]) + b"x")
            holders.append(writer)
            await waiting.acquire()
        for _ in range(20):
            _, writer = await connect(relay)
            writer.write(head("GET", "/api/proxy/users", page(relay)))
            writer.close()
        reader, writer = await connect(relay)
        writer.write(head("GET", "/api/proxy/users", page(relay)))
        answer = await read_answer(reader)
        assert answer.status in (503, 504)
        for one in (*holders, writer):
            one.close()
        await backend.all_closed()
    async with backend.answering(ok()), asyncio.timeout(5):
        assert (await call(relay, "/users")).status == 200
