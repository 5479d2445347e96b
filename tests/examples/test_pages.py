"""Row 26: each page, route and action of the example pages asks for the session itself."""

import importlib.util
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from starlette.responses import Response
from starlette.routing import Route

from tests.support import readme
from tests.support.backends import Backend, running_backend
from tests.support.page_visitor import destination, visit

PUBLIC = {"/", "/login"}


def example() -> ModuleType:
    """Import the example's application from its file."""
    path = readme.ROOT / "examples" / "pages" / "dashboard.py"
    spec = importlib.util.spec_from_file_location("example_dashboard", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def server() -> AsyncIterator[Backend]:
    """A backend that knows no session, and counts who asks."""
    async with running_backend() as running:
        running.answer = lambda _: Response(status_code=401)
        yield running


async def test_row_26_every_page_asks_for_the_session_itself(server: Backend) -> None:
    """Each route is called directly, with a boundary that protects nothing: without a cookie, and with a dead one."""
    app: Any = example().make_app(server.url.removesuffix("/auth/me"), "ws://localhost:8001", protected=[])
    routes = [route for route in app.routes if isinstance(route, Route) and route.path not in PUBLIC]
    assert len(routes) >= 4
    called = 0
    for route in routes:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            assert destination(await visit(app, route.path, method=method))[0] == "/login", route.path
            assert server.calls == [], "nobody is asked without a cookie"
            dead = {"access-token": "dead"}
            assert destination(await visit(app, route.path, dead, method=method))[0] == "/login", route.path
            assert server.calls == ["Bearer dead"]
            server.calls.clear()
            called += 1
    assert called >= 4
    await closed(app)


async def closed(app: Any) -> None:
    """Run the application's lifespan to its end, which closes its connections."""
    sent: list[str] = []
    received = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> dict[str, Any]:
        return {"type": next(received)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "app": app}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_row_26_another_sites_form_saves_nothing(server: Backend) -> None:
    """The action refuses a form of a sibling host, whose requests bring cookies with SameSite=Lax."""
    server.answers({"name": "alice"})
    app: Any = example().make_app(server.url.removesuffix("/auth/me"), "ws://localhost:8001")
    headers = {"Sec-Fetch-Site": "same-site", "Content-Type": "application/x-www-form-urlencoded"}
    answer = await visit(app, "/settings", {"access-token": "a"}, method="POST", headers=headers)
    assert answer.status_code == 403
    await closed(app)
