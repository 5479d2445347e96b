"""Checks of secrets: whether they can be guessed, are used twice, or can be read by other users.

The strength of a secret can't be measured, but some weak ones can be recognised: words of examples, keyboard runs, and
a few repeated characters. No finding quotes a secret or a part of one.
"""

import math
import stat
from collections import Counter
from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity

ENOUGH_BITS = 128
"""Least bits of a random secret: as many as `openssl rand -hex 16` makes."""
_RANDOM_BITS = 90
"""Least entropy of 32 random hex digits, measured by the frequency of each digit. The average is 115."""
_WORDS = frozenset(
    {"secret", "password", "passwort", "changeme", "change-me", "example", "default", "insecure", "qwerty"}
    | {"letmein", "test-", "todo", "0123456", "1234567", "abcdef", "aaaaaa", "xxxxxx"}
)
_ALPHABETS = ("0123456789", "0123456789abcdef", "0123456789ABCDEF")


def _secrets(deployment: Deployment) -> list[tuple[str, str]]:
    session = deployment.settings.session
    found = [("session.ref_key", session.ref_key.get_secret_value())]
    if session.signed is not None:
        found += [
            (f"session.signed.{name}", secret.get_secret_value())
            for name in ("secret", "secret_base64")
            if (secret := getattr(session.signed, name)) is not None
        ]
    if session.authjs is not None:
        found += [("session.authjs.secrets", secret.get_secret_value()) for secret in session.authjs.secrets]
    return found


def _weak_secret(deployment: Deployment) -> Iterator[str]:
    for setting, secret in _secrets(deployment):
        if any(word in secret.lower() for word in _WORDS):
            yield f"{setting} contains a word or a keyboard run that attackers try first"
        elif secret in (secret * 2)[1:-1] or (len(secret) >= 32 and _measured_bits(secret) < _RANDOM_BITS):
            yield f"{setting} repeats a few characters"


def _short_secret(deployment: Deployment) -> Iterator[str]:
    for setting, secret in _secrets(deployment):
        bits = len(secret) * math.log2(_alphabet(secret))
        if bits < ENOUGH_BITS:
            yield f"{setting} has at most {bits:.0f} bits"


def _alphabet(secret: str) -> int:
    """Return the size of the smallest usual alphabet that has all characters of the secret."""
    return next((len(known) for known in _ALPHABETS if set(secret) <= set(known)), 64)


def _measured_bits(secret: str) -> float:
    counts = Counter(secret).values()
    return -sum(count * math.log2(count / len(secret)) for count in counts)


def _shared_secret(deployment: Deployment) -> Iterator[str]:
    seen: dict[str, str] = {}
    for setting, secret in _secrets(deployment):
        if secret in seen:
            yield f"{setting} is the same as {seen[secret]}"
        seen.setdefault(secret, setting)


def _readable_settings(deployment: Deployment) -> Iterator[str]:
    file = deployment.file
    if file is None:
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    text = file.read_text("utf-8")
    if mode & 0o004 and any(secret in text for _, secret in _secrets(deployment)):
        yield f"{file} has secrets and can be read by all users (mode {mode:04o})"
    if mode & 0o022:
        yield f"{file} can be written by other users (mode {mode:04o})"


CHECKS = (
    Check(
        name="weak-secret",
        severity=Severity.ERROR,
        finds="A secret contains a word that attackers try first, or repeats a few characters.",
        means="An attacker who guesses it can log in as any user, or find the user of a session in a log.",
        do="Make a new one: openssl rand -hex 32.",
        run=_weak_secret,
    ),
    Check(
        name="short-secret",
        severity=Severity.WARNING,
        finds="A secret has less than 128 bits, calculated from its length and its characters.",
        means="An attacker with a session's token or a log can find it by trying, without a request to the relay.",
        do="Make a new one: openssl rand -hex 32.",
        run=_short_secret,
    ),
    Check(
        name="shared-secret",
        severity=Severity.ERROR,
        finds="One secret is used for two purposes.",
        means="A person who needs it for one purpose, such as reading logs, can use it for the other one.",
        do="Make a secret for each purpose: openssl rand -hex 32.",
        run=_shared_secret,
    ),
    Check(
        name="readable-settings",
        severity=Severity.ERROR,
        finds="The settings file has secrets and can be read by all users, or it can be written by other users.",
        means="Every user and service of this machine can read the secrets, or change who has access.",
        do="Make the relay's user its owner (10001 in a container) and chmod 600 it, or give the secrets as variables.",
        run=_readable_settings,
    ),
)
