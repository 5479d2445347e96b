"""Secrets: whether they can be guessed, are used twice, or can be read by those who should not.

What a secret is worth can't be measured, but a few that are worth nothing can be told: the words of examples, keyboard
runs, few characters over and over. No finding quotes a secret, or a part of one.
"""

import math
import stat
from collections import Counter
from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity

ENOUGH_BITS = 128
"""What a random secret must have at least, as the shortest that `openssl rand -hex 16` makes."""
_RANDOM_BITS = 90
"""What 32 random hex digits have at least when measured by how often each comes; 115 on the average."""
_WORDS = frozenset(
    {"secret", "password", "passwort", "changeme", "change-me", "example", "default", "insecure", "qwerty"}
    | {"letmein", "test-", "todo", "0123456", "1234567", "abcdef", "aaaaaa", "xxxxxx"}
)
_ALPHABETS = ("0123456789", "0123456789abcdef", "0123456789ABCDEF")


def _secrets(deployment: Deployment) -> list[tuple[str, str]]:
    session = deployment.settings.session
    found = [("session.ref_key", session.ref_key.get_secret_value())]
    if session.signed is not None and session.signed.secret is not None:
        found.append(("session.signed.secret", session.signed.secret.get_secret_value()))
    if session.authjs is not None:
        found += [("session.authjs.secrets", secret.get_secret_value()) for secret in session.authjs.secrets]
    return found


def _weak_secret(deployment: Deployment) -> Iterator[str]:
    for setting, secret in _secrets(deployment):
        if any(word in secret.lower() for word in _WORDS):
            yield f"{setting} has a word or a run of keys in it that everybody tries"
        elif secret in (secret * 2)[1:-1] or (len(secret) >= 32 and _measured_bits(secret) < _RANDOM_BITS):
            yield f"{setting} repeats itself"


def _short_secret(deployment: Deployment) -> Iterator[str]:
    for setting, secret in _secrets(deployment):
        bits = len(secret) * math.log2(_alphabet(secret))
        if bits < ENOUGH_BITS:
            yield f"{setting} has {bits:.0f} bits at most"


def _alphabet(secret: str) -> int:
    """Return how many characters it is drawn from, as far as it shows."""
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
        yield f"{file} has secrets and can be read by everybody (mode {mode:04o})"
    if mode & 0o022:
        yield f"{file} can be written by others (mode {mode:04o})"


CHECKS = (
    Check(
        name="weak-secret",
        severity=Severity.ERROR,
        finds="A secret contains a word that everybody tries, or repeats itself.",
        means="Who guesses it can log in as anybody, or tell from a log whose session is whose.",
        do="Make a new one: openssl rand -hex 32.",
        look=_weak_secret,
    ),
    Check(
        name="short-secret",
        severity=Severity.WARNING,
        finds="A secret has less than 128 bits, judged by its length and the kind of its characters.",
        means="It can be found by trying, without asking the relay: a session's token or a log is enough.",
        do="Make a new one: openssl rand -hex 32.",
        look=_short_secret,
    ),
    Check(
        name="shared-secret",
        severity=Severity.ERROR,
        finds="One secret serves two purposes.",
        means="Who gets it for the one purpose, such as reading logs, has it for the other, such as logging in.",
        do="Make one for each: openssl rand -hex 32.",
        look=_shared_secret,
    ),
    Check(
        name="readable-settings",
        severity=Severity.ERROR,
        finds="The settings file has secrets and is readable by everybody, or it is writable by others.",
        means="Every user and every service of this machine can take the secrets, or change who gets in.",
        do="chown it to the relay's user and chmod 600, or give the secrets as RELAY_* variables.",
        look=_readable_settings,
    ),
)
