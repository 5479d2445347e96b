"""The one place that makes HTTP clients: what each of them ignores, keeps and repeats."""

import ast
import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path

import httpx
import pytest

import relay
from relay.core.errors import UnavailableError
from relay.net import http_client
from relay.net.http_client import MAX_ANSWER_BYTES, UrlClient, async_client, blocking_client
from tests.support.backends import End, KeepAliveBackend, ScriptedBackend, http_answer, kept_answer


@pytest.mark.parametrize("make", [async_client, blocking_client])
def test_a_client_follows_nobody_else(
    make: Callable[..., httpx.AsyncClient | httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy of the environment nor a redirect gets to see a credential."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    client = make("http://127.0.0.1", timeout_s=1)
    assert (client.trust_env, client.follow_redirects) == (False, False)


async def test_a_cookie_is_not_kept() -> None:
    """A cookie that one answer sets does not go out with the next call."""
    server = ScriptedBackend()
    async with (
        server.answering(http_answer(200, {}, "Set-Cookie: a=b; Path=/")),
        async_client(server.origin, timeout_s=5) as client,
    ):
        for _ in range(2):
            assert (await client.get(server.origin)).status_code == 200
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


OK = kept_answer(200, {})


@pytest.mark.parametrize(
    ("script", "connections", "answered"),
    [
        ([OK, OK], [1, 1], True),
        ([OK, End(), OK], [1, 1, 2], True),
        ([OK, End(reset=True), OK], [1, 1, 2], True),
        ([OK, End(b"H"), OK], [1, 1], False),
        ([OK, End(b"H", reset=True), OK], [1, 1], False),
        ([OK, End(OK[:-1]), OK], [1, 1], False),
        ([OK, End(kept_answer(500, {})), OK], [1, 1], True),
        ([OK, End(), End(), OK], [1, 1, 2], False),
    ],
    ids=[
        "kept",
        "closed",
        "reset",
        "a byte",
        "a byte and reset",
        "all but a byte",
        "an answer",
        "closed twice",
    ],
)
async def test_a_post_is_repeated_if_its_kept_connection_was_closed_without_a_byte(
    script: list[bytes | End], connections: list[int], *, answered: bool
) -> None:
    """It goes out once more, on a new connection. After a byte of an answer the server may have acted: never then."""
    async with KeepAliveBackend(*script).running() as server:
        address = UrlClient(server.origin, name="The server", timeout_s=5)
        assert (await address.post({"first": 1})).status == 200
        if answered:
            await address.post({"second": 2})
        else:
            with pytest.raises(UnavailableError, match="The server did not answer"):
                await address.post({"second": 2})
        assert [number for number, _ in server.requests] == connections
        assert all(request.endswith(b'{"second":2}') for _, request in server.requests[1:])
        await address.aclose()


async def test_a_post_is_repeated_on_a_new_connection_and_no_kept_one() -> None:
    """A server that restarts closes all its connections: another kept one would fail as the first one did."""
    count = 5
    async with KeepAliveBackend(*[OK] * count, *[End()] * count, *[OK] * count).running() as server:
        address = UrlClient(server.origin, name="The server", timeout_s=5, connections=count)
        for _ in range(2):
            answers = await asyncio.gather(*(address.post({}) for _ in range(count)))
            assert [answer.status for answer in answers] == [200] * count
        numbers = Counter(number for number, _ in server.requests)
        assert sorted(numbers.values()) == [1] * count + [2] * count
        await address.aclose()


async def test_a_get_is_repeated_once_and_a_post_on_a_new_connection_never() -> None:
    """A server that drops the connection gets two GETs and one POST."""
    server = ScriptedBackend()
    address = UrlClient(server.origin, name="The server", timeout_s=5)
    for post, times in ((False, 2), (True, 1)):
        async with server.answering(b""):
            with pytest.raises(UnavailableError, match="The server did not answer: RemoteProtocolError"):
                await (address.post({"a": 1}) if post else address.get())
        assert len(server.requests) == times
    await address.aclose()


async def test_an_idle_connection_is_kept_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections that a crowd leaves do not stay open: the pool looks at each of them in each call."""
    monkeypatch.setattr(http_client, "KEPT_S", 0.0)
    async with KeepAliveBackend(OK, OK).running() as server:
        address = UrlClient(server.origin, name="The server", timeout_s=20)
        for _ in range(2):
            await address.get()
        assert [number for number, _ in server.requests] == [1, 2]
        await address.aclose()


async def test_a_call_searches_for_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that tries to import a missing package in each call costs more than the call."""
    searched = []

    class Finder(MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            searched.append(name)

    async with KeepAliveBackend(OK, OK).running() as server:
        address = UrlClient(server.origin, name="The server", timeout_s=20)
        await address.get()
        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
        await address.get()
        await address.aclose()
    assert not searched


async def test_a_long_answer_is_refused() -> None:
    """Nobody's answer fills the memory."""
    server = ScriptedBackend()
    address = UrlClient(server.origin, name="The server", timeout_s=5)
    async with server.answering(http_answer(200, b"x" * (MAX_ANSWER_BYTES + 1))):
        with pytest.raises(UnavailableError, match=f"The server answered with more than {MAX_ANSWER_BYTES}"):
            await address.get()
    async with server.answering(http_answer(200, b"x" * MAX_ANSWER_BYTES)):
        assert len((await address.get()).body) == MAX_ANSWER_BYTES
    await address.aclose()


def test_no_other_module_makes_a_client() -> None:
    """A client that is made elsewhere would lack the company's authorities, as the log-in's once did.

    The plain forward of `relay bench proxy` is a yardstick: it is what somebody writes without the relay.
    """
    package = Path(relay.__file__).parent
    makers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in {("httpx", "AsyncClient"), ("httpx", "Client")}
    }
    assert makers == {"net/http_client.py", "bench/load/plain_http.py"}
