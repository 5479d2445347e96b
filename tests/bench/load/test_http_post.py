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
from relay.bench.load.http_post import Poster, split_address
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


def test_one_connection_serves_all_requests(url: str) -> None:
    """Each body is answered, with its own key, and the connection stays open for the next one."""
    with Poster(url) as poster:
        answers = [poster.post("/echo", b'{"n":%d}' % n, bearer=f"key.{n}") for n in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    found = [json.loads(answer.body) for answer in answers]
    assert [answer["body"]["n"] for answer in found] == [0, 1, 2]
    assert [answer["bearer"] for answer in found] == ["Bearer key.0", "Bearer key.1", "Bearer key.2"]
    assert len({answer["port"] for answer in found}) == 1


def test_a_refusal_is_an_answer_that_explains_itself(url: str) -> None:
    """Status, code and message are one line."""
    with Poster(url) as poster:
        assert poster.post("/echo", b'{"refuse":1}', bearer="x").explain() == "403 forbidden Not you."
        assert poster.post("/elsewhere", b"{}", bearer="x").explain() == "404"


def test_nobody_there_is_a_sentence() -> None:
    """A refused connection is no traceback."""
    with (
        Poster("http://127.0.0.1:1") as poster,
        pytest.raises(BenchError, match="can't be reached: Connection ref"),
    ):
        poster.post("/echo", b"{}", bearer="x")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"SSH-2.0-x\r\n\r\n", "is not a relay"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "is not a relay"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "closed the connection before it had answered"),
        (b"", "closed the connection before it had answered"),
    ],
)
def test_an_answer_that_is_none_is_a_sentence(
    answering: Callable[[bytes], str], answer: bytes, sentence: str
) -> None:
    """What answers may be anything; it is said what is wrong with it."""
    with Poster(answering(answer)) as poster, pytest.raises(BenchError, match=sentence):
        poster.post("/echo", b"{}", bearer="x")


@pytest.mark.parametrize(
    "text", ["https://127.0.0.1:8000", "127.0.0.1:8000", "http://", "http://x:99999", "http://x:0"]
)
def test_addresses_are_of_one_form(text: str) -> None:
    """What can't be connected to plainly is refused before anything starts."""
    with pytest.raises(ConfigurationError, match="is not of the form http://HOST:PORT"):
        split_address(text, "http")
    assert split_address("http://[::1]:8000", "http") == ("::1", 8000)
