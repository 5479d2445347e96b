"""A certificate authority that lives as long as a test, and the certificates that it signs."""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate's file and its key's."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates for addresses and names. `path` is its own certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        self._made = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.path = folder / "authority.pem"
        self.path.write_bytes(self._made.public_bytes(Encoding.PEM))

    def client_context(self) -> ssl.SSLContext:
        """Return what a client needs to believe this authority and no other."""
        return ssl.create_default_context(cafile=self.path)

    def issue(
        self,
        *names: str,
        file: str = "server",
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = 90 * DAY,
        password: bytes = b"",
        weak: bool = False,
    ) -> Pair:
        """Write a certificate for these addresses or host names, and its key; times count from now."""
        key = rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names or ("127.0.0.1",)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's server")])
        usage = x509.BasicConstraints(ca=False, path_length=None)
        made = self._sign(subject, key, usage, alternatives, begins=begins, ends=ends)
        pair = Pair(cert=self._folder / f"{file}.pem", key=self._folder / f"{file}.key")
        chain = made.public_bytes(Encoding.PEM) + self._made.public_bytes(Encoding.PEM)
        pair.cert.write_bytes(chain)
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        pair.key.chmod(0o600)
        return pair

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        usage: x509.BasicConstraints,
        alternatives: x509.SubjectAlternativeName | None = None,
        *,
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = DAY,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self._key, SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
