"""Where the audit log is, for the commands that ask it: `audit.path` and `audit.index_memory_mb` alone.

Reading and checking all settings takes longer than most answers do: a third of a second, to import the library for it
and what the sections check with. So these two are read here if nothing about them is unusual.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

PATH = "audit.jsonl"
MEMORY_MB = 512
LEAST_MEMORY_MB = 128
MOST_MEMORY_MB = 1 << 20
"""Defaults and bounds of the two settings."""

SECTIONS = frozenset(
    {"public", "listen", "session", "tokens", "endpoints", "grants", "publishers", "operators", "csrf", "bff"}
    | {"engine", "limits", "channels", "audit", "log"}
)
KEYS = frozenset(
    {"path", "keys_dir", "rotate_mb", "rotate_hours", "keep_days", "fsync", "index_memory_mb", "stdout"}
)
"""The names that a settings file may have, and those of its section of the log. Another one may be meant as one."""

_VARIABLES = {f"RELAY_AUDIT__{key.upper()}": key for key in KEYS}


class AuditLog(msgspec.Struct, frozen=True, kw_only=True):
    """The file that is written, and the memory of the index."""

    path: Path
    memory_mb: int


def audit_log(file: Path | None, variables: Mapping[str, str]) -> AuditLog | None:
    """Return what a settings file and RELAY_* variables say of the log; None: only `relay.settings.load` can tell.

    A relative path in the file is relative to the file's folder.
    """
    found = _section(file)
    if found is None:
        return None
    for name, value in variables.items():
        if name in _VARIABLES:
            found[_VARIABLES[name]] = value
        elif name.upper().startswith("RELAY_AUDIT"):  # JSON of the section, or another way to write a name
            return None
    path, memory = found.get("path", PATH), found.get("index_memory_mb", MEMORY_MB)
    if isinstance(memory, str) and memory.isdecimal() and memory.isascii():
        memory = int(memory)
    if (
        not isinstance(path, str)
        or type(memory) is not int
        or not LEAST_MEMORY_MB <= memory <= MOST_MEMORY_MB
    ):
        return None
    return AuditLog(path=((file.parent if file else Path()) / path).resolve(), memory_mb=memory)


def _section(file: Path | None) -> dict[str, Any] | None:
    """Return the section of the log. None: something in the file is not as it should be."""
    if file is None:
        return {}
    try:
        settings = tomllib.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    section = settings.get("audit", {})
    if not settings.keys() <= SECTIONS or not isinstance(section, dict) or not section.keys() <= KEYS:
        return None
    return dict(section)
