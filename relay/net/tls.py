"""The certificate of a listener: checked before anything starts, and reloaded while the relay runs.

OpenSSL's own errors ("[SSL] PEM lib (_ssl.c:4107)") don't say what is wrong, and it serves an expired certificate
without an error. So the files are read and compared here first. Each error names the setting and says what to do.
"""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from relay.core.errors import ConfigurationError

HANDSHAKE_WITHIN_S: Final = 5
"""Seconds for a TLS handshake. A request's head, or a WebSocket handshake, gets as long after it. The libraries allow a
minute, and no limit counts a connection before the end of its TLS handshake."""

_MAX_FILE_BYTES = 1 << 20
"""Bytes that are read of a file at most. A chain of four certificates has 8 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The paths of a certificate with its chain, and of its private key. `setting` begins the error texts."""

    setting: str
    cert: Path
    key: Path


class ServerTls:
    """The TLS context of one or more listeners, in `context`.

    Certificates are renewed every few weeks. `check` and then `load` put the new files into the same context: new
    handshakes get the new certificate, and open connections go on. Files that don't fit change nothing.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read and check the files.

        Raises:
            ConfigurationError: says what is wrong with which file.
        """
        self.context = _context(files)
        self._certificate = read_certificate(files)

    def check(self, files: TlsFiles) -> None:
        """Read and check files without serving them. The serving context must never hold half a pair.

        Raises:
            ConfigurationError: as in `__init__`.
        """
        _context(files)

    def load(self, files: TlsFiles) -> bool:
        """Serve the files that `check` has just read, and tell whether it is another certificate.

        Call it on the event loop: OpenSSL's context has no lock.

        Raises:
            ConfigurationError: if the files have changed since `check`.
        """
        before, self._certificate = self._certificate, read_certificate(files)
        _load(self.context, files)
        return before != self._certificate


def read_certificate(files: TlsFiles) -> x509.Certificate:
    """Return the certificate that is served: the first one in its file.

    Raises:
        ConfigurationError: if the file can't be read or holds none.
    """
    data = _read(files.cert, setting=f"{files.setting}.cert")
    try:
        return x509.load_pem_x509_certificates(data)[0]
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{files.setting}.cert: {files.cert} holds no certificate in PEM form."
        ) from None


def _context(files: TlsFiles) -> ssl.SSLContext:
    certificate = read_certificate(files)
    _check_pair(certificate, files)
    _check_time(certificate, files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # renegotiation lets a client make the server work at no cost of its own
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, files)
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.cert, files.key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError(
            f"{files.setting}: OpenSSL does not take {files.cert} with {files.key}: {why}."
        ) from None


def _check_pair(certificate: x509.Certificate, files: TlsFiles) -> None:
    setting = f"{files.setting}.key"
    pem = _read(files.key, setting=setting)
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:  # cryptography raises this if a password is needed
        raise ConfigurationError(
            f"{setting}: {files.key} is encrypted, and the relay can't ask for its password. "
            "Decrypt it with `openssl pkey`."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{setting}: {files.key} holds no private key in PEM form.") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ConfigurationError(
            f"{setting}: {files.key} is not the key of the certificate in {files.cert}. "
            "The certificate must come first in its file, and its chain after it."
        )


def _check_time(certificate: x509.Certificate, files: TlsFiles) -> None:
    now = datetime.datetime.now(datetime.UTC)
    setting = f"{files.setting}.cert"
    if certificate.not_valid_after_utc <= now:
        at = certificate.not_valid_after_utc
        raise ConfigurationError(f"{setting}: {files.cert} expired on {at:%Y-%m-%d %H:%M} UTC; renew it.")
    if certificate.not_valid_before_utc > now:
        at = certificate.not_valid_before_utc
        raise ConfigurationError(
            f"{setting}: {files.cert} is valid only from {at:%Y-%m-%d %H:%M} UTC. Is this machine's clock right?"
        )


def _read(path: Path, *, setting: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path} can't be read: {error.strerror}.") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{setting}: {path} is too large to be a certificate or a key.")
    return data
