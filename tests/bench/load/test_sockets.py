"""The hand-written HTTP client, against uvicorn and against what is no HTTP server at all."""

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
from relay.bench.load.sockets import Answer, Link, Loop, Steps, split_address
from relay.bench.load.targets import post_request
from relay.core.errors import ConfigurationError


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


def post(loop: Loop, link: Link, body: bytes, *, path: str = "/echo", bearer: str = "x") -> Answer:
    """Send one request and wait for its answer."""
    return loop.complete(link.call(post_request(link.url, path, body, bearer=bearer)), stall_s=10)


def test_one_connection_serves_all_requests(url: str) -> None:
    """Each body is answered, with its own key, and the connection stays open for the next one."""
    loop = Loop()
    link = Link(url, "http")
    answers = [post(loop, link, b'{"n":%d}' % n, bearer=f"key.{n}") for n in range(3)]
    link.reset()
    assert [answer.status for answer in answers] == [200] * 3
    found = [json.loads(answer.body) for answer in answers]
    assert [answer["body"]["n"] for answer in found] == [0, 1, 2]
    assert [answer["bearer"] for answer in found] == ["Bearer key.0", "Bearer key.1", "Bearer key.2"]
    assert len({answer["port"] for answer in found}) == 1


def test_a_request_larger_than_the_send_buffer_arrives(url: str) -> None:
    """The rest is sent when the socket takes bytes again."""
    loop = Loop()
    link = Link(url, "http")
    text = "x" * 10_000_000
    assert json.loads(post(loop, link, json.dumps({"text": text}).encode()).body)["body"]["text"] == text
    link.reset()


def test_a_refusal_is_an_answer_that_explains_itself(url: str) -> None:
    """Status, code and message are one line."""
    loop = Loop()
    link = Link(url, "http")
    assert post(loop, link, b'{"refuse":1}').explain() == "403 forbidden Not you."
    assert post(loop, link, b"{}", path="/elsewhere").explain() == "404"
    link.reset()


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (b"SSH-2.0-x\r\n\r\n", BenchError, "is not a relay"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ConnectionResetError, "closed by the server"),
        (b"", ConnectionResetError, "closed by the server"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    answering: Callable[[bytes], str], answer: bytes, error: type[Exception], sentence: str
) -> None:
    """Anything may answer; the error says what is wrong with it."""
    loop = Loop()
    link = Link(answering(answer), "http")
    with pytest.raises(error, match=sentence):
        post(loop, link, b"{}")
    link.reset()


def test_clients_take_turns_and_wait(url: str) -> None:
    """A client that waits does not hold up another one, and one that hears nothing is a stall."""
    loop, order = Loop(), []

    def waiting() -> Steps[None]:
        yield 0.1
        order.append("waited")

    def asking() -> Steps[None]:
        link = Link(url, "http")
        yield from link.call(post_request(url, "/echo", b"{}", bearer="x"))
        order.append("answered")
        link.reset()

    loop.run([waiting(), asking()], stall_s=10)
    assert order == ["answered", "waited"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = Link(f"http://127.0.0.1:{silent.getsockname()[1]}", "http")
        with pytest.raises(TimeoutError):
            loop.complete(link.call(b"GET / HTTP/1.1\r\n\r\n"), stall_s=0.05)
        link.reset()


@pytest.mark.parametrize(
    "text", ["https://127.0.0.1:8000", "127.0.0.1:8000", "http://", "http://x:99999", "http://x:0"]
)
def test_addresses_are_of_one_form(text: str) -> None:
    """What can't be connected to plainly is refused before anything starts."""
    with pytest.raises(ConfigurationError, match="is not of the form http://HOST:PORT"):
        split_address(text, "http")
    assert split_address("http://[::1]:8000", "http") == ("::1", 8000)
