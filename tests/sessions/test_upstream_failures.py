"""The session check is down: no answer that makes sense is no session, within the time, and never a token."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.core.errors import Reason, UnavailableError
from relay.sessions import upstream
from relay.sessions.base import Session
from relay.sessions.upstream import UpstreamOptions, UpstreamVerifier
from tests.support.backends import Backend, ScriptedBackend, http_answer, running_backend
from tests.support.ports import free_ports
from tests.support.signed_sessions import NOW, REF_KEY

CREDENTIAL = "an-opaque-token-of-somebody"
GOOD = {"sub": "user-7"}


def verifier_for(url: str, *, timeout_s: float = 60) -> UpstreamVerifier:
    """Return a verifier that asks there."""
    return UpstreamVerifier(UpstreamOptions(me=url, ref_key=REF_KEY, timeout_s=timeout_s))


async def unavailable(verifier: UpstreamVerifier, reason: Reason = Reason.BACKEND_UNAVAILABLE) -> str:
    """Check that there is no answer, and return why; the sentence says nothing of the token."""
    with pytest.raises(UnavailableError) as raised:
        await verifier.verify(CREDENTIAL, now=NOW)
    assert raised.value.reason is reason
    assert CREDENTIAL not in str(raised.value)
    return str(raised.value)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A backend that knows the user, to begin with."""
    async with running_backend() as running:
        running.answers(GOOD)
        yield running


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        *[(status, Reason.BACKEND_FAULT) for status in (301, 308, 400, 402, 405, 406, 415, 418)],
        *[(status, Reason.BACKEND_UNAVAILABLE) for status in (408, 425, 429, 500, 502, 503, 504)],
    ],
)
async def test_a_status_that_says_nothing_about_the_session(
    backend: Backend, status: int, reason: Reason
) -> None:
    """A status that passes is an outage, and one that comes again is a fault; nothing is kept of either."""
    verifier = verifier_for(backend.url)
    backend.answers(GOOD, status=status, headers={"location": "/elsewhere"})
    assert str(status) in await unavailable(verifier, reason)
    backend.answers(GOOD)
    assert isinstance(await verifier.verify(CREDENTIAL, now=NOW), Session)
    assert len(backend.calls) == 2  # a redirect was not followed: the token would go wherever it points
    await verifier.aclose()


@pytest.mark.parametrize(
    "body",
    [
        *[
            b"",
            b"<html>",
            b"[]",
            b'"user-7"',
            b"null",
            b"\xff\xfe",
            b'{"sub":"a","sub":"b"}',
            b'{"sub":"user-7"',
        ],
        *[b'{"sub":NaN}', b'{"sub":"\\ud800"}', b'{"a":' * 5000 + b"1" + b"}" * 5000, b" " * 70_000 + b"{}"],
    ],
    ids=range(12),
)
async def test_what_is_no_json_object(backend: Backend, body: bytes) -> None:
    """A log-in page with status 200, two users in one answer, more than 64 KiB."""
    verifier = verifier_for(backend.url)
    backend.answers(body)
    await unavailable(verifier, Reason.BACKEND_FAULT)
    await verifier.aclose()


async def test_a_compressed_answer_is_refused(backend: Backend) -> None:
    """It was not asked for, and is not unpacked."""
    import gzip

    verifier = verifier_for(backend.url)
    backend.answers(gzip.compress(b'{"sub":"user-7"}'), headers={"content-encoding": "gzip"})
    await unavailable(verifier, Reason.BACKEND_FAULT)
    await verifier.aclose()


async def test_a_backend_that_hangs(backend: Backend) -> None:
    """Its time is bounded, for all who wait, and those who come later get an answer."""
    verifier = verifier_for(backend.url, timeout_s=0.1)
    backend.hold()
    refused = await asyncio.gather(
        *(verifier.verify(CREDENTIAL, now=NOW) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(error, UnavailableError) for error in refused)
    assert len(backend.calls) <= 1  # on a busy machine the time is up before it got there
    backend.release()
    await verifier.aclose()
    patient = verifier_for(backend.url)
    assert isinstance(await patient.verify(CREDENTIAL, now=NOW), Session)
    await patient.aclose()


async def test_the_timeout_includes_the_wait_for_a_free_call(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that gets no call of its own is an outage as well, and the backend never sees it."""
    monkeypatch.setattr(upstream, "MAX_CHECKS", 1)
    verifier = verifier_for(backend.url, timeout_s=0.1)
    async with verifier._call_slots:  # the only call is taken, by one that does not end
        assert "did not answer" in await unavailable(verifier)
    assert backend.calls == []
    await verifier.aclose()


async def test_a_check_above_the_bound_is_refused_at_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound a caller is refused at once, and the others are not hurt."""
    monkeypatch.setattr(upstream, "MAX_WAITING", 1)
    verifier = verifier_for(backend.url)
    backend.hold()
    first = asyncio.create_task(verifier.verify("token-1", now=NOW))
    await backend.called(1)
    assert "wait" in await unavailable(verifier)
    backend.release()
    assert isinstance(await first, Session)
    await verifier.aclose()


async def test_a_refused_connection_is_an_outage() -> None:
    """A refused connection is no answer."""
    [port] = free_ports(1)
    verifier = verifier_for(f"http://127.0.0.1:{port}/auth/me")
    assert "ConnectError" in await unavailable(verifier)
    await verifier.aclose()


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (http_answer(200, GOOD)[:-3], {}),
        (http_answer(200, GOOD), {"drip_s": 0.01}),
        (b"", {}),
        (b"SSH-2.0-OpenSSH_9.2\r\n", {}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nhello", {}),
        (http_answer(200, GOOD)[:60], {"hang": True}),
    ],
    ids=["cut off", "a byte now and then", "nothing", "ssh", "two lengths", "half a head"],
)
async def test_answers_that_are_no_http(answer: bytes, options: dict[str, Any]) -> None:
    """Whatever comes over the wire, the time is for the whole of it."""
    backend = ScriptedBackend()
    verifier = verifier_for(f"{backend.origin}/auth/me", timeout_s=0.3)
    async with backend.answering(answer, **options):
        await unavailable(verifier)
    await verifier.aclose()


async def test_the_end_of_the_service(backend: Backend) -> None:
    """Who waits when the verifier is closed is told so."""
    verifier = verifier_for(backend.url)
    backend.hold()
    waiting = asyncio.create_task(verifier.verify(CREDENTIAL, now=NOW))
    await backend.called(1)
    await verifier.aclose()
    with pytest.raises(UnavailableError):
        await waiting


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_the_environments_proxy_gets_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A variable that somebody set for another program must not see tokens."""
    [port] = free_ports(1)
    monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    verifier = verifier_for(backend.url)
    assert isinstance(await verifier.verify(CREDENTIAL, now=NOW), Session)
    await verifier.aclose()


async def test_cookies_are_not_kept(backend: Backend) -> None:
    """What the backend sets for one user does not go out with the next one's token."""
    verifier = verifier_for(backend.url)
    backend.answers(GOOD, headers={"set-cookie": "user=one; Path=/"})
    for credential in ("one", "two"):
        assert isinstance(await verifier.verify(credential, now=NOW), Session)
    assert all("cookie" not in headers for headers in backend.headers)
    await verifier.aclose()


async def test_a_connection_that_was_closed_meanwhile() -> None:
    """A backend that ends an idle connection as it is used again is asked once more, and nobody notices."""
    handlers: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_answer(200, GOOD).replace(b"Connection: close\r\n", b""))
        await writer.drain()
        await reader.read(1)  # the next request begins, and gets no answer
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    verifier = verifier_for(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/auth/me")
    for credential in ("one", "two", "three"):
        assert isinstance(await verifier.verify(credential, now=NOW), Session)
    assert len(handlers) == 3
    await verifier.aclose()
    server.close()
    await asyncio.gather(*filter(None, handlers))
