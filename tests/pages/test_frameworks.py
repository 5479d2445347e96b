"""The same pages in Starlette, FastAPI and Django, with the boundary inside and around the application."""

import importlib.util
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from relay.pages import PageAnswer, PageBoundary, backend, verify_session
from tests.support.backends import Backend, running_backend
from tests.support.page_visitor import COOKIES, destination, opened, visit


class _Boundary(PageBoundary):
    """A boundary inside an application, whose connections are closed after the test."""

    def __init__(self, app: ASGIApp, /, **options: Any) -> None:
        super().__init__(app, **options)
        opened.add(self)


def needed(package: str) -> None:
    """Skip the test where a framework is not installed, unless this is CI."""
    if importlib.util.find_spec(package) is None:
        assert os.environ.get("CI") != "true", f"{package} is missing: pip install '.[test]'"
        pytest.skip(f"{package} is not installed")


def starlette_inside(options: dict[str, Any]) -> Any:
    """The boundary as a middleware of Starlette, and the page below a mount."""

    async def page(request: Request) -> Response:
        user = await verify_session(request)
        if isinstance(user, PageAnswer):
            return user
        await backend(request).get("/elsewhere")
        return JSONResponse(user)

    mount = Mount("/dashboard", routes=[Route("/page", page)])
    return Starlette(routes=[mount], middleware=[Middleware(_Boundary, **options)])


def starlette_around(options: dict[str, Any]) -> Any:
    """The boundary around Starlette, whose own middleware turns exceptions into 500."""
    inner = starlette_inside(options)
    inner.user_middleware.clear()
    return PageBoundary(inner, **options)


def fastapi_application(options: dict[str, Any]) -> Any:
    """FastAPI, which takes a `PageAnswer` as a response of its own."""
    needed("fastapi")
    from fastapi import FastAPI

    app = FastAPI()
    app.add_middleware(_Boundary, **options)

    async def page(request: Request) -> Any:
        user = await verify_session(request)
        if isinstance(user, PageAnswer):
            return user
        await backend(request).get("/elsewhere")
        return user

    app.add_api_route("/dashboard/page", page, response_model=None)
    return app


def django_application(options: dict[str, Any]) -> Any:
    """Django, whose view copies a `PageAnswer`, and whose handler catches all exceptions."""
    needed("django")
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse, JsonResponse
    from django.urls import path

    async def page(request: Any) -> Any:
        user = await verify_session(request)
        if isinstance(user, PageAnswer):
            return HttpResponse(user.body, status=user.status_code, headers=dict(user.headers))
        await backend(request).get("/elsewhere")
        return JsonResponse(user)

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="k" * 50, LOGGING_CONFIG=None)
    # a tuple of patterns is a URL configuration as well as a module's name is
    settings.ROOT_URLCONF = (path("dashboard/page", page),)
    return PageBoundary(get_asgi_application(), **options)


@pytest.fixture
async def server() -> AsyncIterator[Backend]:
    """A backend whose `/auth/me` takes any token, and whose other route refuses one."""
    async with running_backend() as running:
        running.answer = lambda authorization: JSONResponse({"user": {"name": authorization[7:]}})
        yield running


@pytest.mark.parametrize(
    "make", [starlette_inside, starlette_around, fastapi_application, django_application]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the frameworks themselves
async def test_pages_of_a_framework(server: Backend, make: Callable[[dict[str, Any]], Any]) -> None:
    """The user, the log-in, the renewal, the error page, and a `SessionEnded` that no view catches."""
    options = {"protected": ["/dashboard"], "backend": server.url.removesuffix("/auth/me"), **COOKIES}
    app = make(options)
    access, both = {"access-token": "alice"}, {"access-token": "alice", "refresh-token": "r"}
    answer = await visit(app, "/dashboard/page", access)
    assert (answer.status_code, answer.json()) == (200, {"name": "alice"})
    assert answer.headers["cache-control"] == "private, no-store"
    assert destination(await visit(app, "/dashboard/page"))[0] == "/login"
    assert destination(await visit(app, "/dashboard/page", {"refresh-token": "r"}))[0] == "/session"

    good = server.answer
    calls = len(server.calls)
    # the first call is /auth/me, the second one the page's own
    server.answer = lambda text: good(text) if len(server.calls) == calls + 1 else Response(status_code=401)
    answer = await visit(app, "/dashboard/page?a=1", both)
    assert destination(answer) == ("/session", {"returnTo": ["/dashboard/page?a=1"]})
    server.answers(status=503)
    answer = await visit(app, "/dashboard/page", access)
    assert answer.status_code == 503
    assert "still logged in" in answer.text
