"""The types of the doctor: a deployment, a check and a finding."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from relay.net import addresses
from relay.settings.load import Settings


class Severity(StrEnum):
    """ERROR: an attacker can get in, or data that must be kept gets lost. WARNING: unwise. NOTE: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """The clock of a server that the settings name.

    `ahead_s` is the least number of seconds by which this machine's clock is ahead of it; it is negative if this clock
    is slow, and 0 if the whole seconds of an HTTP date can't tell. None: the server did not answer.
    """

    setting: str
    host: str
    ahead_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the engine says of itself. With a `fault`, it can't be used, and nothing else is known.

    `ahead_s` is by how many seconds this machine's clock is ahead of it. `memory` is its maxmemory, or without one all
    of its machine, in bytes; 0 if it does not tell.
    `nodes` is how many nodes have written their row in the last hour and have not ended.
    """

    fault: str = ""
    ahead_s: float = 0.0
    memory: int = 0
    is_persistent: bool = True
    replicas: int = 0
    needs_replicas: bool = False
    nodes: int = 0
    has_sentinels: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Settings, and facts about the machine that they are for.

    `file` is the settings file. `now` is in Unix seconds. `open_files` is the limit of open files of a process.
    `filesystem_of` returns the type of file system of a path. `clocks` is empty if no server was asked, and `engine`
    is None then and without an engine.
    """

    settings: Settings
    file: Path | None
    now: float
    open_files: int
    filesystem_of: Callable[[Path], str]
    clocks: Sequence[ClockReading] = ()
    engine: EngineFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check. `run` yields a part of a sentence for each finding, and nothing if all is well.

    The texts are sentences: `finds` says what the check finds, `means` why it matters, `do` what to do about it.
    """

    name: str
    severity: Severity
    finds: str
    means: str
    do: str
    run: Callable[[Deployment], Iterable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding of a check. `found` is a part of a sentence."""

    check: Check
    found: str


def host_of(address: str) -> str:
    """Return the host of "host:port" or of an origin. An IPv6 address is returned without its brackets."""
    rest = address.partition("://")[2] or address
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine for browsers, which follow RFC 6761 §6.3."""
    return host.endswith(".localhost") or addresses.is_loopback(host)
