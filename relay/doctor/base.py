"""What a check is, what it looks at, and what it finds."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from relay.settings.load import Settings


class Severity(StrEnum):
    """How bad it is. ERROR: somebody can get in, or what must be kept gets lost. WARNING: unwise. NOTE: to be known."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What a server that the settings name says about the time.

    `ahead_s` is how far this machine's clock is ahead of it at least, in seconds, negative if behind, and 0 where
    the whole seconds of an HTTP date can't tell. None: it did not answer.
    """

    setting: str
    host: str
    ahead_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Settings, and what is known of the machine that they are for.

    `file` is the settings file, `now` Unix seconds, `open_files` the limit of open files a process, `filesystem_of`
    tells the kind of file system that a path is on. `clocks` is empty where nobody was to be asked.
    """

    settings: Settings
    file: Path | None
    now: float
    open_files: int
    filesystem_of: Callable[[Path], str]
    clocks: Sequence[ClockReading] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing to look for. `look` yields what was found, a part of a sentence each; nothing where all is well.

    `finds` says for the documentation when that is, `means` why it matters, `do` what to do about it.
    """

    name: str
    severity: Severity
    finds: str
    means: str
    do: str
    look: Callable[[Deployment], Iterable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found, in the words `found`."""

    check: Check
    found: str


def host_of(address: str) -> str:
    """Return the host of "host:port" or of an origin, without an IPv6 address's brackets."""
    rest = address.partition("://")[2] or address
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only mean this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
