"""A token that names its own key: by a path, by an address, by bringing it along. The relay opens and fetches nothing.

A named pipe stands where a path leads: a program that opens it to read would wait without end, and so would the test
for its answer. A listening socket stands where an address leads, and at the end nobody has called.
"""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.forged_tokens import claims, issuer_key, signed
from tests.support.jws_forgery import b64, forge
from tests.support.raw_http import bearing, knock, upgrade
from tests.support.relay_process import Relay


@pytest.fixture
def pipe(relay: Relay) -> Iterator[Path]:
    """A named pipe beside the folder of the relay's keys."""
    path = relay.folder / "evil.pem"
    os.mkfifo(path)
    yield path
    path.unlink()


async def refused(relay: Relay, token: str) -> bool:
    """Tell whether a token is refused as any other bad one."""
    answer = await knock(relay, fields=[*upgrade(relay), bearing(token)])
    return answer.status == 401 and answer.code == "invalid_token"


async def test_a_kid_is_no_path(relay: Relay, pipe: Path) -> None:
    """Whatever way a kid writes it, the file is not opened, and the token is refused."""
    evil = Ed25519PrivateKey.generate()
    deep = "../" * 12
    for kid in (
        str(pipe),
        f"file://{pipe}",
        f"{deep}{pipe}",
        "../evil.pem",
        "../evil",
        "keys/../evil.pem",
        "..%2fevil.pem",
        "..\\evil.pem",
        f"{pipe}\x00.pem",
        "/dev/stdin",
    ):
        token = forge({"typ": "scoped+jwt", "alg": "EdDSA", "kid": kid}, claims(relay), evil)
        assert await refused(relay, token), kid
    with pytest.raises(OSError, match="No such device") as nobody:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    assert nobody.value.errno == errno.ENXIO, "a reader has the pipe open"


@pytest.mark.parametrize(
    "kid",
    [
        None,
        True,
        0,
        1.5,
        [],
        {},
        ["{kid}"],
        {"kid": "{kid}"},
        "",
        " ",
        "{kid} ",
        "\t{kid}",
        "{kid}\x00",
        "{KID}",
    ],
    ids=repr,
)
async def test_a_kid_is_one_exact_text(relay: Relay, kid: object) -> None:
    """Only the text itself finds the key, although the signature is the relay's own in each case."""
    own = issuer_key(relay).kid
    spelled = json.loads(json.dumps(kid).replace("{kid}", own).replace("{KID}", own.upper() + "X"))
    assert await refused(relay, signed(relay, claims(relay), {"kid": spelled}))


async def test_a_kid_of_8_kb_is_too_long(relay: Relay) -> None:
    """A token has 4096 bytes at most, its header included; and a kid just below that is looked up in vain."""
    for length in (8192, 2000):
        assert await refused(relay, signed(relay, claims(relay), {"kid": "k" * length})[:7900])
    await relay.audited("connect.denied", reason="token_too_large")
    await relay.audited("connect.denied", reason="token_key_unknown")


async def test_a_token_can_not_bring_or_name_its_key(relay: Relay) -> None:
    """jku, x5u, jwk, x5c and the like refuse it, wherever they lead; nobody is called for a key."""
    evil = Ed25519PrivateKey.generate()
    raw = evil.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    own = issuer_key(relay).kid
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": own, "alg": "EdDSA"}
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/keys.json"
        for name, value in {
            "jku": address,
            "x5u": address,
            "jwk": jwk,
            "x5c": [b64(raw)],
            "x5t": b64(raw[:20]),
            "x5t#S256": b64(raw),
            "url": address,
            "iss": address,
            "JKU": address,
        }.items():
            for kid in (own, address, "evil"):
                header = {"typ": "scoped+jwt", "alg": "EdDSA", "kid": kid, name: value}
                assert await refused(relay, forge(header, claims(relay), evil)), name
            assert await refused(relay, signed(relay, claims(relay), {name: value})), f"{name}, well signed"
        assert await refused(relay, forge(header, claims(relay, iss=address), evil))
        await relay.audited("connect.denied", reason="token_header")
        with pytest.raises(BlockingIOError):
            listener.accept()
