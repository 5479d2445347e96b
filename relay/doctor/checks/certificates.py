"""Checks of the listeners' certificates: their end, their names and the mode of their keys."""

import ipaddress
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography import x509

from relay.doctor.base import Check, Deployment, Severity, host_of
from relay.net.tls import TlsFiles, read_certificate
from relay.server.certificates import tls_files

SOON_DAYS = 14
"""Days before its end from which a certificate is a finding. Automatic renewal happens 30 days before the end."""


def _files(deployment: Deployment) -> list[TlsFiles]:
    return [files for files in tls_files(deployment.settings) if files is not None]


def _expiring(deployment: Deployment) -> Iterator[str]:
    for files in _files(deployment):
        end = read_certificate(files).not_valid_after_utc
        days = (end - datetime.fromtimestamp(deployment.now, UTC)).days
        if days < SOON_DAYS:
            yield f"{files.cert} expires on {end:%Y-%m-%d}"


def _other_names(deployment: Deployment) -> Iterator[str]:
    public, _ = tls_files(deployment.settings)
    if public is None:
        return
    certificate = read_certificate(public)
    for setting, url in (
        ("public.url", deployment.settings.public.url),
        ("public.stream_url", deployment.settings.public.stream_url),
    ):
        if not _covers(certificate, host_of(url)):
            yield f"{public.cert} is not for {host_of(url)} ({setting})"


def _covers(certificate: x509.Certificate, host: str) -> bool:
    """Tell whether browsers accept the certificate for `host` (RFC 9525): no common name, `*` for a first label."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        known = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return bool({host, f"*.{host.partition('.')[2]}"} & known)


def _readable_key(deployment: Deployment) -> Iterator[str]:
    for files in _files(deployment):
        mode = stat.S_IMODE(files.key.stat().st_mode)
        if mode & 0o006:
            yield f"{files.key} can be read or written by all users (mode {mode:04o})"


CHECKS = (
    Check(
        name="certificate-names",
        severity=Severity.ERROR,
        finds="The certificate of listen.tls is not for the host of public.url or public.stream_url.",
        means="Browsers refuse to connect, and do not tell the page why.",
        do="Use one certificate for both names.",
        run=_other_names,
    ),
    Check(
        name="certificate-key",
        severity=Severity.ERROR,
        finds="The private key of a certificate can be read or written by all users.",
        means="Every user of this machine can pretend to be this server.",
        do="chmod 600 the file, and get a new certificate with a new key: the old key may be known.",
        run=_readable_key,
    ),
    Check(
        name="certificate-expiring",
        severity=Severity.WARNING,
        finds=f"A certificate of a listener expires within {SOON_DAYS} days.",
        means="After its end the relay refuses to start, and browsers refuse to connect.",
        do="Renew it and send the relay SIGHUP. Automate the renewal.",
        run=_expiring,
    ),
)
