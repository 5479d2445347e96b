"""The proxy's connections to a backend: over TLS, and at the moment at which the backend ends them."""

import contextlib
import socket
import struct
from pathlib import Path

import pytest

from relay.bff.proxy.upstream import Upstream, UpstreamError
from tests.support.backends import ScriptedBackend
from tests.support.certificates import Authority

UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000


async def fetch(scripted: ScriptedBackend) -> bytes:
    """Call this backend once, and return the body."""
    upstream = Upstream(scripted.origin, connections=1, keepalive_s=1, connect_within_s=5)
    try:
        async with scripted.answering(UNTIL_THE_END):
            connection = await upstream.acquire()
            connection.begin("GET", b"/users", [(b"host", upstream.authority)])
            connection.end_body()
            body = b""
            assert (await connection.head()).status == 200
            while (piece := await connection.piece()) is not None:
                body += piece
            upstream.release(connection, whole=True)
            return body
    finally:
        await upstream.aclose()
        assert upstream.open == 0


async def test_an_answer_arrives_whole_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a backend with a company's certificate, also if only the end of the connection tells its length."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    assert await fetch(ScriptedBackend(authority.issue("127.0.0.1"))) == b"x" * 300_000


@pytest.mark.parametrize(("name", "known"), [("127.0.0.1", False), ("127.0.0.2", True)])
async def test_a_certificate_that_proves_nothing_gets_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, known: bool
) -> None:
    """With an unknown authority, or with another host's certificate, nothing is sent. The error names no host."""
    authority = Authority(tmp_path)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    scripted = ScriptedBackend(authority.issue(name))
    with pytest.raises(UpstreamError, match=r"can't be reached: SSLCertVerificationError\.$"):
        await fetch(scripted)
    assert scripted.requests == []


def refuse(accepted: socket.socket) -> None:
    """Answer 413 on a connection, and reset it."""
    accepted.sendall(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()


@pytest.mark.parametrize(
    "at", ["the head", "a head alone", "a piece", "a piece that the socket was not asked for"]
)
async def test_an_answer_before_a_reset_is_not_lost(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer and the reset are in the socket when something is sent: the answer is read all the same.

    The last case is a reset that comes between the question to the socket and the write.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = Upstream(
            f"http://127.0.0.1:{server.getsockname()[1]}", connections=1, keepalive_s=9, connect_within_s=5
        )
        connection = await upstream.acquire()
        if "not asked" in at:
            monkeypatch.setattr(connection, "_has_unread_answer", lambda: False)
        accepted = server.accept()[0]
        if "head" in at:
            refuse(accepted)  # in this turn of the loop, which has read nothing of it yet
        if at == "a head alone":
            connection.begin("GET", b"/orders", [(b"host", b"x")])
            connection.end_body()
        else:
            connection.begin("POST", b"/orders", [(b"host", b"x"), (b"content-length", b"6")])
            if at != "the head":
                refuse(accepted)
            with contextlib.suppress(UpstreamError):
                await connection.send(b"abc")
        assert (await connection.head()).status == 413
        upstream.release(connection, whole=False)


async def test_a_kept_connection_that_was_just_closed_is_not_used() -> None:
    """Its end is in the socket, and the loop has not read it yet: a write would be lost, and is never sent twice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = Upstream(
            f"http://127.0.0.1:{server.getsockname()[1]}", connections=1, keepalive_s=9, connect_within_s=5
        )
        first = await upstream.acquire()
        first.begin("GET", b"/users", [(b"host", b"x")])
        first.end_body()
        accepted = server.accept()[0]
        accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert (await first.head()).status == 200
        assert await first.piece() is None
        upstream.release(first, whole=True)
        accepted.close()
        second = await upstream.acquire()
        assert second is not first
        upstream.release(second, whole=False)
