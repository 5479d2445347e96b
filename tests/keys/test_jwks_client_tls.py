"""Keys over https: the publisher has to prove who it is, to an authority that this machine knows."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from relay.core.errors import UnavailableError
from relay.keys.jwks import read_published, to_jwks, verify_key
from relay.keys.jwks_client import JwksClient
from tests.support.backends import http_answer

KEY = verify_key(Ed25519PrivateKey.generate().public_key())


def certificate(folder: Path, address: str) -> Path:
    """Make a certificate for an address that is its own authority; key and certificate are in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .sign(key, SHA256())
    )
    path = folder / "publisher.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + made.public_bytes(Encoding.PEM))
    return path


@contextlib.asynccontextmanager
async def publishing(pem: Path) -> AsyncIterator[str]:
    """Publish the key over TLS; gives the URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    answer = http_answer(200, to_jwks({KEY.kid: KEY}))

    handlers: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    finally:
        server.close()
        await asyncio.gather(*filter(None, handlers))


async def test_an_authority_that_this_machine_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's own authority counts where its machines know it."""
    pem = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with publishing(pem) as url:
        client = JwksClient(url, read=read_published)
        assert await client.key(KEY.kid) == KEY
        await client.aclose()


@pytest.mark.parametrize(("address", "known"), [("127.0.0.1", False), ("127.0.0.2", True)])
async def test_a_publisher_that_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, *, known: bool
) -> None:
    """An authority that nobody knows, or a certificate for somebody else: no keys."""
    pem = certificate(tmp_path, address)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    async with publishing(pem) as url:
        client = JwksClient(url, read=read_published)
        with pytest.raises(UnavailableError, match="ConnectError"):
            await client.key(KEY.kid)
        await client.aclose()
