"""The command `relay listen` as a process: its arguments and environment."""

import os
import sys

from tests.support.relay_process import Relay

COMMAND = [sys.executable, "-m", "relay", "listen"]


def environment(**more: str) -> dict[str, str]:
    """Return the environment without settings of the caller's own relay, for a terminal without colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return kept | {"TERM": "xterm", "NO_COLOR": "1"} | more


def asking(relay: Relay) -> list[str]:
    """Return the arguments of a user who is logged in."""
    return ["--session-token", relay.session(), "--issuer", relay.url]
