"""The hand-written HTTP client, against uvicorn and against what is no HTTP server at all."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from relay.bench import BenchError
from relay.bench.load.clients import Answer, Link, post_request, run_clients


async def echo(request: Request) -> JSONResponse:
    """Answer with what came, and from which port."""
    assert request.client is not None
    body = await request.json()
    if "refuse" in body:
        return JSONResponse({"code": "forbidden", "message": "Not you."}, status_code=403)
    return JSONResponse(
        {"body": body, "bearer": request.headers["authorization"], "port": request.client.port}
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run the echo on uvicorn, in a thread."""
    app = Starlette(routes=[Route("/echo", echo, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Return a function that makes a server which answers everything with the same bytes, and closes."""
    threads: list[threading.Thread] = []

    def make(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with listener, listener.accept()[0] as connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield make
    for thread in threads:
        thread.join()


async def post(link: Link, body: bytes, *, path: str = "/echo", bearer: str = "x") -> Answer:
    """Send one request and wait for its answer."""
    async with asyncio.timeout(10):
        return await link.call(post_request(link.url, path, body, bearer=bearer))


async def test_one_connection_serves_all_requests(url: str) -> None:
    """Each body is answered, with its own key, and the connection stays open for the next one."""
    link = await Link.open(url)
    answers = [await post(link, b'{"n":%d}' % n, bearer=f"key.{n}") for n in range(3)]
    link.close()
    assert [answer.status for answer in answers] == [200] * 3
    found = [json.loads(answer.body) for answer in answers]
    assert [answer["body"]["n"] for answer in found] == [0, 1, 2]
    assert [answer["bearer"] for answer in found] == ["Bearer key.0", "Bearer key.1", "Bearer key.2"]
    assert len({answer["port"] for answer in found}) == 1


async def test_a_request_larger_than_the_send_buffer_arrives(url: str) -> None:
    """The rest is sent when the socket takes bytes again."""
    link = await Link.open(url)
    text = "x" * 10_000_000
    assert json.loads((await post(link, json.dumps({"text": text}).encode())).body)["body"]["text"] == text
    link.close()


async def test_a_refusal_is_an_answer_that_explains_itself(url: str) -> None:
    """Status, code and message are one line."""
    link = await Link.open(url)
    assert (await post(link, b'{"refuse":1}')).explain() == "403 forbidden Not you."
    assert (await post(link, b"{}", path="/elsewhere")).explain() == "404"
    link.close()


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (b"SSH-2.0-x\r\n\r\n", BenchError, "is not a relay"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ConnectionResetError, "closed by the server"),
        (b"", ConnectionResetError, "closed by the server"),
    ],
)
async def test_an_answer_that_is_none_is_an_error(
    answering: Callable[[bytes], str], answer: bytes, error: type[Exception], sentence: str
) -> None:
    """Anything may answer; the error says what is wrong with it."""
    link = await Link.open(answering(answer))
    with pytest.raises(error, match=sentence):
        await post(link, b"{}")
    link.close()


async def test_clients_that_get_no_further_are_ended() -> None:
    """When no client gets any further, all of them end; the first error of one ends the others too."""
    ended: list[str] = []

    async def silent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("silent")

    async def failing() -> None:
        raise BenchError("It did not answer.")

    with pytest.raises(TimeoutError):
        await run_clients([silent(), silent()], lambda: 0, stall_s=0.05)
    assert ended == ["silent"] * 2
    with pytest.raises(BenchError, match="It did not answer"):
        await run_clients([silent(), failing()], lambda: 0, stall_s=10)
    assert ended == ["silent"] * 3
