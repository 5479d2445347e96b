"""The public API, `relay.client`, `relay.verify` and `relay.pages`: its names, and its types as mypy reads them."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relay.client import (
    Closed,
    Event,
    Gap,
    Message,
    Position,
    Publisher,
    PublishError,
    Receipt,
    ScopedToken,
    Snapshot,
    Subscriber,
    Update,
    fetch_token,
)
from relay.pages import PageAnswer, PageBoundary, SessionEnded, User, backend, return_to, verify_session
from relay.verify import Claims, MemorySingleUse, Refusal, ScopedTokenMiddleware, Verifier
from relay.verify.sqlite import SqliteSingleUse


async def publish() -> int | None:
    async with Publisher("http://127.0.0.1:8002", "pricing.SECRET", transport="http") as publisher:
        receipt: Receipt = await publisher.publish("prices.A", {"bid": "1.10"}, version=1)
        await publisher.send("prices.A", b"{}")
        for result in await publisher.publish_many([Message(channel="prices.A", data="1"), ("prices.B", 2)]):
            if isinstance(result, PublishError):
                print(result.code, result.retryable, result.retry_after_s)
        return receipt.seq


async def read(session: str) -> dict[str, Position]:
    async def token() -> ScopedToken:
        return await fetch_token("http://127.0.0.1:8000", session, channels=["prices.A"])

    async with Subscriber("ws://127.0.0.1:8001/ws/prices", token) as prices:
        await prices.subscribe(["prices.A"], interval_ms=100)
        event: Event
        async for event in prices:
            match event:
                case Snapshot() | Update():
                    print(event.channel, event.seq, event.data)
                case Gap() | Closed():
                    break
        return prices.positions


async def check(text: str) -> str:
    verifier = Verifier(
        issuer="https://app.example.com",
        audience="https://reports.example.com/v1/export",
        keys="https://app.example.com/.well-known/jwks.json",
        single_use=MemorySingleUse(),
    )
    SqliteSingleUse.open(Path("used-tokens.db"))
    outcome: Claims | Refusal = await verifier.verify(text, origin="https://app.example.com")
    return outcome.detail if isinstance(outcome, Refusal) else outcome.subject


async def show(request: Request) -> Response:
    user: User | PageAnswer = await verify_session(request)
    if isinstance(user, PageAnswer):
        return user
    try:
        answer = await backend(request).get("/orders")
    except SessionEnded as ended:
        return ended.answer
    return JSONResponse([user, answer.json(), return_to(request, default="/dashboard")])


inside = Starlette(middleware=[Middleware(PageBoundary, protected=["/dashboard"], home="/dashboard")])
outside = PageBoundary(Starlette(), protected=["/dashboard"], backend="http://127.0.0.1:9000")
reveal_type(publish)
reveal_type(read)
asyncio.run(read("session"))
"""


@pytest.mark.parametrize("name", ["relay.client", "relay.pages", "relay.verify"])
def test_every_public_name_exists(name: str) -> None:
    """`__all__` is sorted, has no name twice, and each name in it can be imported."""
    module = importlib.import_module(name)
    assert module.__all__ == sorted(set(module.__all__))
    for public in module.__all__:
        assert hasattr(module, public), public


def test_a_typed_program_passes_mypy_strict(tmp_path: Path) -> None:
    """A program that uses the installed package passes `mypy --strict`, and its types are not Any."""
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", script.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Coroutine[Any, Any, int | None]" in done.stdout
    assert "relay.client.receipts.Position]" in done.stdout


def test_the_installed_package_says_that_it_is_typed() -> None:
    """`py.typed` lies beside the package: without it a type checker reads nothing (PEP 561)."""
    import relay

    assert (Path(relay.__file__).parent / "py.typed").is_file()
