"""The key of signed sessions in the settings, in each form in which people have it."""

import base64
import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from relay.core.errors import ConfigurationError, Refusal
from relay.sessions.base import EndedRefusal
from relay.sessions.signed import SignedVerifier
from relay.sessions.signed_keys import decode_secret
from tests.support.jws_forgery import forge
from tests.support.signed_sessions import (
    ED25519,
    NOW,
    OPTIONS,
    P256,
    PAYLOAD,
    PRIVATE_KEYS,
    RSA,
    SECRET,
    public_pem,
    session,
)


def certificate(key: Any) -> bytes:
    """Return a certificate of this key in DER. It has expired, as those of identity providers sometimes have."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "id.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        subject_name=name,
        issuer_name=name,
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=now - datetime.timedelta(days=9),
        not_valid_after=now - datetime.timedelta(days=1),
    )
    return made.sign(key, None if key is ED25519 else SHA256()).public_bytes(Encoding.DER)


def as_bytes(text: str | bytes) -> bytes:
    """Return what a file with this text has."""
    return text if isinstance(text, bytes) else text.encode()


def certificate_pem(key: Any) -> str:
    """Return the same certificate as PEM."""
    return x509.load_der_x509_certificate(certificate(key)).public_bytes(Encoding.PEM).decode()


def public(key: Any, encoding: Encoding, form: PublicFormat) -> bytes:
    """Return a public key in this form."""
    data: bytes = key.public_key().public_bytes(encoding, form)
    return data


def der(key: Any) -> bytes:
    """Return a public key in DER."""
    return public(key, Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def private(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, encoding: Encoding = Encoding.PEM) -> bytes:
    """Return a private key, which never belongs into these settings."""
    data: bytes = key.private_bytes(encoding, form, NoEncryption())
    return data


def jwk(key: Any) -> str:
    """Return a public key as one JWK."""
    reader: Any = RSAAlgorithm if key is RSA else OKPAlgorithm if key is ED25519 else ECAlgorithm
    return str(reader.to_jwk(key.public_key()))


def pem(key: Any) -> str:
    """Return a public key as PEM."""
    return public_pem(key).decode()


TAKEN: dict[str, Callable[[Any], str | bytes]] = {
    "DER": der,
    "DER of a certificate": certificate,
    "a file in UTF-16": lambda key: pem(key).encode("utf-16"),
    "PEM": pem,
    "line breaks written out": lambda key: pem(key).replace("\n", "\\n"),
    "Windows line breaks written out": lambda key: pem(key).replace("\n", "\\r\\n"),
    "line breaks lost": lambda key: pem(key).replace("\n", " "),
    "no line breaks at all": lambda key: pem(key).replace("\n", ""),
    "in quotes": lambda key: f'"{pem(key)}"',
    "indented": lambda key: "\n".join("    " + line for line in pem(key).split("\n")),
    "with text around it": lambda key: f"# the key of the backend\n{pem(key)}\n# its end",
    "with a byte order mark": lambda key: "\ufeff" + pem(key),
    "bare base64": lambda key: base64.b64encode(der(key)).decode(),
    "bare base64 in lines": lambda key: base64.encodebytes(der(key)).decode(),
    "bare base64 without padding": lambda key: base64.b64encode(der(key)).decode().rstrip("="),
    "a certificate": certificate_pem,
    "a certificate, line breaks written out": lambda key: certificate_pem(key).replace("\n", "\\n"),
    "a chain of certificates": lambda key: certificate_pem(key) + certificate_pem(P256),
    "bare base64 of a certificate": lambda key: base64.b64encode(certificate(key)).decode(),
    "OpenSSH": lambda key: public(key, Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    "a JWK": jwk,
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "Ed25519"])
async def test_what_can_mean_one_key_only_is_taken(name: str, algorithm: str) -> None:
    """Each form that can mean one thing only gives the key that it holds."""
    key = PRIVATE_KEYS["EdDSA" if algorithm == "Ed25519" else algorithm]
    verifier = SignedVerifier(replace(OPTIONS, algorithm=algorithm, key=as_bytes(TAKEN[name](key))))
    signed = jwt.encode(PAYLOAD, key, algorithm="EdDSA" if key is ED25519 else algorithm)
    assert (await session(signed, verifier)).subject == "user-7"


async def test_rsa_in_its_own_older_form() -> None:
    """BEGIN RSA PUBLIC KEY is PKCS #1."""
    text = public(RSA, Encoding.PEM, PublicFormat.PKCS1)
    verifier = SignedVerifier(replace(OPTIONS, algorithm="RS256", key=text))
    assert (await session(jwt.encode(PAYLOAD, RSA, algorithm="RS256"), verifier)).subject == "user-7"


REFUSED: dict[str, tuple[str, str]] = {
    "nothing": ("", "an empty text"),
    "a word": ("my public key!", "a text that is no key"),
    "a URL": ("https://id.example.com/jwks.json", "a URL: set jwks_url"),
    "a path": ("/etc/backend.pem", "a path: set public_key_file"),
    "half of a PEM": (pem(RSA)[:200], "a PEM text without its last line"),
    "a PEM with broken base64": (
        pem(RSA).replace("MII", "M!I"),
        "a PEM text (PUBLIC KEY) whose base64 is broken",
    ),
    "base64 of something else": (
        base64.b64encode(b"x" * 90).decode(),
        "base64 or DER that holds no public key",
    ),
    "a certificate request": (
        "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----",
        "base64 or DER that holds no public key",
    ),
    "a broken OpenSSH key": ("ssh-rsa AAAA", "an OpenSSH key that can't be read"),
    "broken JSON": ('{"kty": "RSA"', "a JSON text that can't be read"),
    "a JWK Set": ('{"keys": []}', "a JWK Set: give one key of it, or its URL as jwks_url"),
    "a JWK for something else": ('{"kty": "EC"}', "a JWK that can't be used (its kty is not RSA)"),
    "a private key": (private(RSA).decode(), "a private key: the relay needs only the public one"),
    "a private key, breaks written out": (private(RSA).decode().replace("\n", "\\n"), "a private key"),
    "an older private key": (private(RSA, PrivateFormat.TraditionalOpenSSL).decode(), "a private key"),
    "bare base64 of a private key": (
        base64.b64encode(private(RSA, encoding=Encoding.DER)).decode(),
        "a private key",
    ),
    "a private JWK": (RSAAlgorithm.to_jwk(RSA), "a JWK with a private or secret key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_public_key_is_named(name: str) -> None:
    """One sentence says what it is, and quotes nothing of it."""
    text, said = REFUSED[name]
    with pytest.raises(ConfigurationError) as raised:
        SignedVerifier(replace(OPTIONS, algorithm="RS256", key=text.encode()))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(text) < 40 or text[30:60] not in str(raised.value)


@pytest.mark.parametrize("name", TAKEN)
def test_none_of_them_is_a_secret(name: str) -> None:
    """In each form it is refused as the secret of HS256: everybody who knows it could sign."""
    for key in (RSA, P256, ED25519):
        with pytest.raises(ConfigurationError, match="public key could sign with it"):
            SignedVerifier(replace(OPTIONS, algorithm="HS256", key=as_bytes(TAKEN[name](key))))


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(SECRET).decode(),
        base64.b64encode(SECRET).decode().rstrip("="),
        base64.urlsafe_b64encode(SECRET).decode(),
        base64.urlsafe_b64encode(SECRET).decode().rstrip("="),
    ],
)
async def test_a_secret_in_base64(text: str) -> None:
    """In either alphabet, padded or not, it is the bytes that it encodes."""
    verifier = SignedVerifier(replace(OPTIONS, key=decode_secret(text)))
    assert (await session(jwt.encode(PAYLOAD, SECRET, algorithm="HS256"), verifier)).subject == "user-7"
    signed = joserfc.jwt.encode({"alg": "HS256"}, PAYLOAD, joserfc.jwk.OctKey.import_key(SECRET))
    assert (await session(signed, verifier)).subject == "user-7"


def test_secrets_with_both_alphabets_characters() -> None:
    """+/ and -_ stand for the same bits."""
    raw = bytes(range(190, 256))
    assert decode_secret(base64.b64encode(raw).decode()) == raw
    assert decode_secret(base64.urlsafe_b64encode(raw).decode()) == raw


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
async def test_a_secret_under_the_other_name(alphabet: Callable[[bytes], bytes]) -> None:
    """The setting is wrong, and not the session: the log says which one, and the cookies stay."""
    raw = bytes(range(190, 256))
    text = alphabet(raw)
    for options, signed, name in (
        (replace(OPTIONS, key=text), jwt.encode(PAYLOAD, raw, algorithm="HS256"), "secret_base64"),
        (replace(OPTIONS, key=raw), jwt.encode(PAYLOAD, text, algorithm="HS256"), "secret"),
        (replace(OPTIONS, key=raw), jwt.encode(PAYLOAD, text.rstrip(b"="), algorithm="HS256"), "secret"),
    ):
        refused = await SignedVerifier(options).verify(signed, now=NOW)
        assert isinstance(refused, Refusal)
        assert not isinstance(refused, EndedRefusal)
        assert (refused.setting, f"session.signed.{name}." in refused.detail) == (
            f"session.signed.{name}",
            True,
        )
    forged = await SignedVerifier(replace(OPTIONS, key=raw)).verify(
        forge({"alg": "HS256"}, PAYLOAD, b"x"), now=NOW
    )
    assert isinstance(forged, EndedRefusal)


@pytest.mark.parametrize("text", ["", "a", "not base64!", "AA AA", "a-b+", "é" * 44])
def test_a_secret_that_is_no_base64(text: str) -> None:
    """The sentence says what to set if the backend uses the text itself."""
    with pytest.raises(ConfigurationError, match=r"secret_base64 is not base64.*set it as secret"):
        decode_secret(text)
