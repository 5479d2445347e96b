"""Start the example on this machine: a backend, the relay, the pages, nginx in front, and a market.

    python examples/pages/start.py

Then open http://localhost:8080. Ctrl-C stops everything. All files that it makes are in a folder that is deleted then.
"""
# ruff: noqa: T201  # an example prints for its reader

import argparse
import asyncio
import contextlib
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from relay.client import Publisher

FOLDER = Path(__file__).parent
PORTS = (8080, 3000, 8000, 8001, 8002, 9000)
"""nginx, the pages, the relay's three listeners, and the backend, as the files of this folder name them."""
PRICES = {
    "BTC-USD": 64_123.41,
    "ETH-USD": 3_412.77,
    "SOL-USD": 171.26,
    "EUR-USD": 1.0852,
    "XAU-USD": 2_356.18,
}
START_S = 60
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
"""The checkout's own relay, whether or not one is installed."""


def filled(name: str, folder: Path, ports: dict[int, int], *texts: str) -> Path:
    """Copy a file of this folder, with these ports and with one of the texts in the place of each "…"."""
    content = (FOLDER / name).read_text("utf-8")
    content = re.sub(r":(\d{4})\b", lambda found: f":{ports[int(found[1])]}", content)
    for text in texts:
        content = content.replace('"…"', f'"{text}"', 1)
    made = folder / name
    made.touch(mode=0o600)
    made.write_text(content, "utf-8")
    return made


def commands(folder: Path, ports: dict[int, int], publisher_secret: str) -> list[list[str]]:
    """Return what is to be started, one after the other."""
    secret = folder / "backend-secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32))
    hashed = hashlib.sha256(publisher_secret.encode()).hexdigest()
    texts = (secrets.token_hex(32), secret.read_text(), hashed)
    python, backend = sys.executable, f"http://127.0.0.1:{ports[9000]}"
    relay = filled("relay.toml", folder, ports, *texts)
    subprocess.run(
        [python, "-m", "relay", "keys", "new", "--dir", str(folder / "keys")], check=True, capture_output=True
    )
    pages = ["--backend", backend, "--stream", f"ws://localhost:{ports[8001]}", "--port", str(ports[3000])]
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")  # Debian's place
    if nginx is None:
        raise SystemExit(
            "nginx is missing: it makes the pages and the log-in one origin (apt-get install nginx)."
        )
    user = ["-g", "user root;"] if os.geteuid() == 0 else []  # nobody else can read the folder
    return [
        [python, str(FOLDER / "backend.py"), "--port", str(ports[9000]), "--secret-file", str(secret)],
        [python, "-m", "relay", "serve", "--config", str(relay)],
        [python, str(FOLDER / "dashboard.py"), *pages],
        [nginx, "-p", str(folder), "-c", str(filled("nginx.conf", folder, ports)), "-e", "stderr", *user],
    ]


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a program listens on its port."""
    ends = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        if process.poll() is not None or time.monotonic() > ends:
            raise SystemExit(f"{process.args!r} did not start; is port {port} in use?")
        time.sleep(0.05)


async def publish(url: str, key: str) -> None:
    """Publish a made-up market until it is cancelled."""
    prices = dict(PRICES)
    async with Publisher(url, key) as publisher:
        while True:
            for symbol in prices:
                prices[symbol] *= random.gauss(1, 0.0002)
                digits = 4 if prices[symbol] < 10 else 2
                quote = {
                    "bid": f"{prices[symbol]:.{digits}f}",
                    "ask": f"{prices[symbol] * 1.0001:.{digits}f}",
                }
                await publisher.send(f"prices.{symbol}", quote)
            await asyncio.sleep(0.25)


def main(ports: dict[int, int]) -> None:
    """Run everything until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    publisher_secret = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="relay-pages-") as folder, contextlib.ExitStack() as stack:
        # in the order in which they need each other
        started = zip(commands(Path(folder), ports, publisher_secret), (9000, 8000, 3000, 8080), strict=True)
        for command, port in started:
            # a session of its own: Ctrl-C then reaches this program only, which stops the others in their order
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            wait_for(ports[port], process)
        print(
            f"""\
  open       http://localhost:{ports[8080]}
  log in as  demo@example.com, password demo

Ctrl-C stops it.""",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(publish(f"http://127.0.0.1:{ports[8002]}", f"market.{publisher_secret}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start the example with all its parts.")
    parser.add_argument(
        "--ports",
        nargs=len(PORTS),
        type=int,
        default=PORTS,
        help="ports of nginx, the pages, the relay's three listeners and the backend",
    )
    main(dict(zip(PORTS, parser.parse_args().ports, strict=True)))
