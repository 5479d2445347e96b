"""A relay whose key of sessions comes from a variable, in the forms in which platforms give them."""

import base64
import time
from pathlib import Path
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.relay_process import make_relay, with_session
from tests.support.signed_sessions import ED25519, RSA, public_pem

RAW = bytes(range(200, 248))
DER = ED25519.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key: Any) -> bytes:
    """Return a private key as joserfc reads it."""
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


FORMS: dict[str, tuple[str, str, Any, Any]] = {
    "HS256": ("secret_base64", base64.b64encode(RAW).decode(), RAW, joserfc.jwk.OctKey.import_key(RAW)),
    "RS256": (
        "public_key",
        public_pem(RSA).decode().replace("\n", "\\n"),
        RSA,
        joserfc.jwk.RSAKey.import_key(pem(RSA)),
    ),
    "Ed25519": (
        "public_key",
        base64.b64encode(DER).decode(),
        ED25519,
        joserfc.jwk.OKPKey.import_key(pem(ED25519)),
    ),
}
"""By algorithm: the setting, its value, and the key for each of the two libraries."""


@pytest.mark.parametrize("algorithm", FORMS)
async def test_a_key_from_a_variable(tmp_path: Path, algorithm: str) -> None:
    """A base64 secret, PEM with written-out line breaks, bare base64: sessions of both libraries are accepted."""
    setting, value, for_pyjwt, for_joserfc = FORMS[algorithm]
    relay = with_session(
        make_relay(tmp_path), f'signed.algorithm = "{algorithm}"', 'signed.require = { token_use = "access" }'
    )
    relay.environment = {f"RELAY_SESSION__SIGNED__{setting.upper()}": value}
    relay.start()
    try:
        now = int(time.time())
        claims = {"sub": "u", "roles": ["trader"], "token_use": "access", "iat": now, "exp": now + 600}
        header = {"alg": algorithm}
        for session in (
            jwt.encode(claims, for_pyjwt, algorithm=algorithm.replace("Ed25519", "EdDSA")),
            joserfc.jwt.encode(header, claims, for_joserfc, algorithms=[algorithm]),
        ):
            answer = await relay.ask(session)
            assert answer.status_code == 200, relay.log_path.read_text()
    finally:
        relay.stop()
    assert value not in relay.log_path.read_text() + relay.audit_path.read_text()
