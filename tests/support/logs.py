"""The process's own log of a relay, as lines."""

import json
from typing import Any

from tests.support.relay_process import Relay


def lines_with(relay: Relay, event: str) -> list[dict[str, Any]]:
    """Return the lines of this event, as they were written."""
    lines = [line for line in relay.log_path.read_text().splitlines() if line.startswith("{")]
    return [record for record in map(json.loads, lines) if record.get("event") == event]
