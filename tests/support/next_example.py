"""Builds examples/nextjs once for each change of its files, and runs it as its README says, behind nginx.

The build is in `.nextjs` in the checkout, which git ignores: npm downloads 370 MB, and a build takes half a minute.
"""

import asyncio
import contextlib
import faulthandler
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.keys.files import create_signing_key
from relay.net.sockets import bind
from relay.web.uvicorn_runner import HttpServer
from tests.support.certificates import Authority
from tests.support.chromium import missing
from tests.support.ports import free_ports
from tests.support.readme import ROOT
from tests.support.relay_process import PUBLISHER_SECRET, REF_KEY, SECRET, Relay
from tests.support.reverse_proxy import filled, needed, nginx_command, wait_for

FOLDER = ROOT / "examples" / "nextjs"
PACKAGE = ROOT / "relay" / "browser"
BUILDS = ROOT / ".nextjs"
NOT_SOURCES = {"node_modules", ".next", "next-env.d.ts", "tsconfig.tsbuildinfo", "__pycache__"}
ENVIRONMENT = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1"}
PASSWORD = "example"
SESSION, REFRESH = "__Host-access-token", "__Host-refresh-token"


# --- the build ------------------------------------------------------------------------------------


def built() -> Path:
    """Return the folder of the example's build, and make it if a file has changed since the last one.

    `build.log` there is what `next build` said. Skip, or fail in CI, where npm is missing or can't install.
    """
    needed("node")
    npm = needed("npm")
    # pytest dumps the stacks of a test that seems stuck; this may take longer, and has limits of its own
    faulthandler.cancel_dump_traceback_later()
    BUILDS.mkdir(exist_ok=True)
    with (BUILDS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another of pytest's workers may want it too
        app = (
            BUILDS / "app"
        )  # as deep in the checkout as the example: package.json names the client by a relative path
        app.mkdir(exist_ok=True)
        with _unless_done(app / "installed", [FOLDER / "package-lock.json", *_files(PACKAGE)]) as install:
            if install:
                _copy_sources(app)
                _install(npm, app)
        with _unless_done(app / "built", [app / "installed", *_files(FOLDER)]) as build:
            if build:
                _copy_sources(app)
                _build(app)
    return app


@contextlib.contextmanager
def _unless_done(mark: Path, inputs: list[Path]) -> Iterator[bool]:
    """Give whether these inputs have changed; at the end of the block, note them as done."""
    digest = hashlib.sha256()
    for file in inputs:
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    changed = not mark.exists() or mark.read_text() != digest.hexdigest()
    if changed:
        mark.unlink(missing_ok=True)
    yield changed
    mark.write_text(digest.hexdigest())


def _files(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*"))
    return [path for path in paths if path.is_file() and not NOT_SOURCES & {*path.relative_to(folder).parts}]


def _copy_sources(app: Path) -> None:
    for entry in app.iterdir():
        if entry.name not in {"node_modules", "installed"}:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for file in _files(FOLDER):
        target = app / file.relative_to(FOLDER)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _install(npm: str, app: Path) -> None:
    # no scripts: nothing of a package runs before the build
    command = [npm, "ci", "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=app, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    if done.returncode:
        missing(f"npm could not install the Next.js example: {done.stderr.strip()[-200:]}")


def _build(app: Path) -> None:
    (app / ".next" / "cache").mkdir(parents=True)  # without one, Next.js warns on a build server
    done = subprocess.run(
        [*next_command(app), "build"],
        cwd=app,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    (app / "build.log").write_text(done.stdout)


def next_command(app: Path) -> list[str]:
    """Return the command that npm would run for `next`, without npm around the process."""
    return [needed("node"), str(app / "node_modules/next/dist/bin/next")]


def manifest(app: Path, name: str) -> dict[str, Any]:
    """Return a list that the build has made of its own parts."""
    found: dict[str, Any] = json.loads((app / ".next" / "server" / f"{name}.json").read_text())
    return found


# --- what runs ------------------------------------------------------------------------------------


class Backend:
    """The example's own backend. `calls` counts by path, `tokens` are all that it has made, `wait_for` awaits calls.

    `answers` replaces the answer of a path while it is set. `together` holds the callers of a path until all have come.
    """

    def __init__(self, app: ASGIApp, accounts: Any) -> None:
        self.accounts = accounts
        self.calls: Counter[str] = Counter()
        self.tokens: set[str] = set()
        self.addresses: set[str] = set()
        self.answers: dict[str, Callable[[], Response]] = {}
        self.together: dict[str, asyncio.Barrier] = {}
        self._app = app
        self._called = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        self.addresses |= {value.decode() for name, value in scope["headers"] if name == b"x-forwarded-for"}
        if path in self.together:
            await self.together[path].wait()
        if path in self.answers:
            await self.answers[path]()(scope, receive, send)
        else:
            await self._app(scope, receive, self._noting_tokens(send))
        async with self._called:
            self.calls[path] += 1
            self._called.notify_all()

    async def wait_for(self, path: str, calls: int) -> None:
        """Wait until a path was called so many times."""
        async with asyncio.timeout(30), self._called:
            await self._called.wait_for(lambda: self.calls[path] >= calls)

    def _noting_tokens(self, send: Send) -> Send:
        async def noting(message: Message) -> None:
            self.tokens |= set(re.findall(r'Token":"([^"]+)"', message.get("body", b"").decode()))
            await send(message)

        return noting


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The example while it runs. `url` is nginx's address and the origin, `next_url` that of Next.js behind it."""

    app: Path
    url: str
    next_url: str
    backend: Backend
    relay: Relay
    logs: Path = field(repr=False)


@contextlib.asynccontextmanager
async def running_example(folder: Path) -> AsyncIterator[Example]:
    """Run the backend, the relay, Next.js and nginx with the example's files, changed as its README says."""
    app = built()
    nginx = needed("nginx")
    front, next_port, backend_port, *ports = free_ports(6)
    relay = _relay(folder, (ports[0], ports[1], ports[2]), front=front, backend=backend_port)
    environment = {
        **ENVIRONMENT,
        "BACKEND_URL": f"http://127.0.0.1:{backend_port}",
        "NODE_ENV": "production",
    }
    start = [*next_command(app), "start", "--hostname", "127.0.0.1", "--port", str(next_port)]
    pages = _nginx(nginx, folder, front=front, next_port=next_port, relay=relay)
    async with contextlib.AsyncExitStack() as stack:
        backend = await stack.enter_async_context(_backend(backend_port, relay))
        relay.start()
        stack.callback(relay.stop)
        for name, command, port in (("next", start, next_port), ("nginx", pages, front)):
            stack.enter_context(_process(folder / f"{name}.log", command, port, app, environment))
        yield Example(
            app=app,
            url=f"https://127.0.0.1:{front}",
            next_url=f"http://127.0.0.1:{next_port}",
            backend=backend,
            relay=relay,
            logs=folder,
        )


def _relay(folder: Path, ports: tuple[int, int, int], *, front: int, backend: int) -> Relay:
    changes = {
        '"http://localhost:3000"': f'"https://127.0.0.1:{front}"',
        '"ws://localhost:8001"': f'"wss://127.0.0.1:{front}"\ntrusted_proxies = ["127.0.0.1"]',
        '"access-token"': f'"{SESSION}"',
        '"refresh-token"': f'"{REFRESH}"',
        "127.0.0.1:8000": f"127.0.0.1:{ports[0]}",
        "127.0.0.1:8001": f"127.0.0.1:{ports[1]}",
        "127.0.0.1:8002": f"127.0.0.1:{ports[2]}",
        "127.0.0.1:9000": f"127.0.0.1:{backend}",
    }
    (folder / "relay.toml").touch(mode=0o600)
    (folder / "relay.toml").write_text(filled((FOLDER / "relay.toml").read_text(), changes))
    create_signing_key(folder / "keys")
    publisher = hashlib.sha256(PUBLISHER_SECRET.encode()).hexdigest()
    environment = {
        "RELAY_SESSION__REF_KEY": REF_KEY,
        "RELAY_SESSION__SIGNED__SECRET": SECRET,
        "RELAY_PUBLISHERS__MARKET__SECRET_SHA256": json.dumps([publisher]),
        "RELAY_LIMITS__LOGINS_PER_ACCOUNT": "1000/minute",
        "RELAY_LIMITS__LOGINS_PER_ACCOUNT_AND_ADDRESS": "1000/minute",
    }
    return Relay(folder=folder, ports=ports, environment=environment)


def _nginx(program: str, folder: Path, *, front: int, next_port: int, relay: Relay) -> list[str]:
    pair = Authority(folder).issue("127.0.0.1")
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{front} ssl",
        "127.0.0.1:8000": f"127.0.0.1:{relay.ports[0]}",
        "127.0.0.1:8001": f"127.0.0.1:{relay.ports[1]}",
        "127.0.0.1:3000": f"127.0.0.1:{next_port}",
        "/etc/ssl/example.com.pem": str(pair.cert),
        "/etc/ssl/example.com.key": str(pair.key),
        "/var/log/nginx/": f"{folder}/",
    }
    return nginx_command(program, folder, filled((FOLDER / "nginx.conf").read_text(), changes))


@contextlib.asynccontextmanager
async def _backend(port: int, relay: Relay) -> AsyncIterator[Backend]:
    spec = importlib.util.spec_from_file_location("next_example_backend", FOLDER / "backend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    accounts = module.Accounts(SECRET)
    key = f"market.{PUBLISHER_SECRET}"
    app = module.create_app(accounts, module.Market(), relay=relay.internal_url, publish_key=key)
    backend = Backend(app, accounts)
    server = HttpServer(backend, bind(f"127.0.0.1:{port}", setting="the test's backend"))
    running = asyncio.create_task(server.run())
    await server.started()
    try:
        async with app.router.lifespan_context(app):
            yield backend
    finally:
        server.stop()
        await running


@contextlib.contextmanager
def _process(
    log: Path, command: list[str], port: int, folder: Path, environment: dict[str, str]
) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        wait_for(port, process, log.parent)
        yield
    finally:
        process.terminate()
        process.wait(20)
