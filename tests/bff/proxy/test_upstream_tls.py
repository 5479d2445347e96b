"""The proxy's connections to a backend with TLS."""

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
