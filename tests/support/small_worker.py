"""A worker that starts in milliseconds: it says what happens to it, for the tests of the supervisor.

It accepts connections on its socket `http` and answers each with its process id. Files in its working directory change
it: with `broken` it ends with 3 at its start, with `slow` it does not become ready, with `drains` SIGUSR2 does not end
it, and as long as there is a file `lingers` no signal does.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType


def say(text: str) -> None:
    """Append a line to the file of all workers."""
    with Path("said").open("a") as file:
        file.write(f"{os.getpid()} {text}\n")


def notify(text: str) -> None:
    """Send a line to the supervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def end(number: int, _frame: FrameType | None) -> None:
    """Say which signal came, and end."""
    say(signal.Signals(number).name)
    while Path("lingers").exists():
        time.sleep(0.01)  # another process removes it
    if number != signal.SIGUSR2 or not Path("drains").exists():
        sys.exit(0)


def end_with_supervisor() -> None:
    """Say when the supervisor has gone, and end."""
    sys.stdin.read()
    say("alone")
    os._exit(0)


def main() -> None:
    """Accept connections until a signal comes, or until the supervisor has gone."""
    if Path("broken").exists():
        sys.exit(3)
    # select returns for a signal that comes just before it, and accept would not
    waked, waking = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, lambda *_: say("SIGHUP"))
    listener = socket.socket(fileno=json.loads(sys.argv[-1])["sockets"]["http"])
    listener.setblocking(False)  # another worker may take the connection
    listener.listen()
    threading.Thread(target=end_with_supervisor, daemon=True).start()
    wanted = [waked]
    if Path("slow").exists():
        say("starting")
    else:
        wanted.append(listener)
        say("ready")
        notify("READY=1")
    while True:
        found, _, _ = select.select(wanted, [], [])
        if waked in found:
            waked.recv(1)
        if listener in found:
            with suppress(BlockingIOError):
                accepted, _ = listener.accept()
                with accepted:
                    accepted.sendall(str(os.getpid()).encode())


if __name__ == "__main__":
    main()
