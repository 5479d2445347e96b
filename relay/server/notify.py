"""What a process tells the supervisor that started it: systemd with `Type=notify`, or `relay serve --workers`.

The protocol is that of sd_notify(3): lines of text in one datagram to the socket that NOTIFY_SOCKET names. Without that
variable nobody wants to know.
"""

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
EXTEND = "EXTEND_TIMEOUT_USEC="


def notify(*lines: str) -> None:
    """Send lines to the supervisor, if there is one. A supervisor that has gone is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        sock.send("\n".join(lines).encode())


def notify_reloading() -> None:
    """Say that the settings are being read again. `READY` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def notify_stopping(within_s: float) -> None:
    """Say that this process is stopping, and that it may need so long."""
    notify(STOPPING, f"{EXTEND}{round(within_s * 1e6)}")


def extension_s(lines: Sequence[str]) -> float | None:
    """Return the seconds that the lines of a process ask for before its end, or None."""
    told = [line.removeprefix(EXTEND) for line in lines if line.startswith(EXTEND)]
    return int(told[-1]) / 1e6 if told and told[-1].isdigit() else None


def watchdog_s() -> float | None:
    """Return the seconds within which the supervisor wants a sign of life from this process, or None."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() and int(text) else None


async def give_signs_of_life() -> None:
    """Send a sign of life twice in the watchdog's time, until cancelled. A loop that is stuck sends none."""
    within_s = watchdog_s()
    while within_s is not None:
        notify(WATCHDOG)
        await asyncio.sleep(within_s / 2)
