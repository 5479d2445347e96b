"""A program that writes an audit log as a relay does, and says up to which record each answer has to know it.

    python -m tests.support.audit_writer PATH RECORDS [RATE]

It writes so many records a second (2,000), and after each 100 of them a line with their number, when they are in the
file. Each record is the token of a user of its own, and every tenth one is refused.
"""

import asyncio
import sys
from pathlib import Path

from relay.audit.jsonl import JsonlAuditor
from relay.core.errors import Reason
from relay.core.events import Action, Client, Event

SOME = 100


def event(number: int) -> Event:
    """Return the record of this number."""
    refused = number % 10 == 0
    return Event(
        action=Action.CONNECT_DENIED if refused else Action.CONNECT_ACCEPTED,
        reason=Reason.TOKEN_REPLAYED if refused else None,
        user=f"user-{number}",
        endpoint="prices",
        client=Client(address="10.0.0.1"),
        relay={
            "token": {"jti": f"jti-{number}", "channels": ["prices.>"]},
            "connection": {"id": f"connection-{number}"},
            **({"anomalies": ["replay"]} if refused else {}),
        },
    )


async def write(path: Path, records: int, rate: float) -> None:
    """Write them."""
    auditor = JsonlAuditor.open(path, node="node-1")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for first in range(0, records, SOME):
        for number in range(first, first + SOME - 1):
            auditor.note(event(number))
        await auditor.record(event(first + SOME - 1))
        sys.stdout.write(f"{first + SOME}\n")
        sys.stdout.flush()
        await asyncio.sleep(begun + (first + SOME) / rate - loop.time())
    await auditor.aclose()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 2000.0))
