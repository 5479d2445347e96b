"""Pages behind the proxy of examples/deploy: one origin with TLS, and cookies with their default names."""

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relay.net.sockets import bind
from relay.pages import PageAnswer, PageBoundary, verify_session
from relay.web.uvicorn_runner import HttpServer
from tests.support.backends import demo_backend
from tests.support.certificates import Authority
from tests.support.page_visitor import opened
from tests.support.reverse_proxy import nginx


async def page(request: Request) -> Response:
    """Show the user."""
    user = await verify_session(request)
    return user if isinstance(user, PageAnswer) else JSONResponse(user)


async def test_pages_behind_the_proxy_of_a_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-in at the relay, pages at port 3000, and `__Host-` cookies: no argument but the backend."""
    monkeypatch.setenv("RELAY_SESSION__COOKIE", "__Host-access-token")
    monkeypatch.setenv("RELAY_BFF__REFRESH_COOKIE", "__Host-refresh-token")
    with demo_backend(tmp_path) as backend:
        monkeypatch.setenv("RELAY_BFF__BACKEND", backend)
        app = PageBoundary(
            Starlette(routes=[Route("/dashboard", page)]), protected=["/dashboard"], backend=backend
        )
        opened.add(app)
        with nginx(tmp_path, Authority(tmp_path)) as front:
            server = HttpServer(app, bind(f"127.0.0.1:{front.pages_port}", setting="the test's pages"))
            running = asyncio.create_task(server.run())
            await server.started()
            async with httpx.AsyncClient(verify=front.ca, trust_env=False, base_url=front.url) as client:
                assert (await client.get("/dashboard")).headers["location"] == "/login?returnTo=%2Fdashboard"
                body = {"email": "demo@example.com", "password": "demo"}
                answer = await client.post("/api/auth/login", json=body, headers={"Origin": front.url})
                assert answer.status_code == 200
                assert {cookie.name for cookie in client.cookies.jar} == {
                    "__Host-access-token",
                    "__Host-refresh-token",
                }
                shown = await client.get("/dashboard")
                assert shown.json()["name"] == "Demo Trader"
                assert shown.headers["cache-control"] == "private, no-store"
                client.cookies.delete("__Host-access-token")
                assert (await client.get("/dashboard")).headers[
                    "location"
                ] == "/session?returnTo=%2Fdashboard"
                answer = await client.post("/api/auth/refresh", headers={"Origin": front.url})
                assert answer.status_code == 204
                assert (await client.get("/dashboard")).status_code == 200
            server.stop()
            await running
