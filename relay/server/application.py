"""The frame of both HTTP applications: the middleware, and the answers to requests that no route takes."""

import secrets
from collections.abc import Sequence

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from relay.web.answers import error_answer

log = structlog.get_logger("relay")


def application(routes: Sequence[BaseRoute], *middleware: Middleware) -> Starlette:
    """Return an application of these routes. Every error has the form of `relay.web.answers`."""
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={404: _not_found, 405: _not_allowed, 500: _failed},
    )
    # A path has one spelling. A redirect would repeat the host name that the client sent.
    app.router.redirect_slashes = False
    return app


async def _not_found(_request: Request, _error: Exception) -> Response:
    return error_answer(404, "not_found", "There is nothing here.")


async def _not_allowed(_request: Request, error: Exception) -> Response:
    answer = error_answer(405, "method_not_allowed", "This address does not take this method.")
    if isinstance(error, HTTPException):
        answer.headers.update(error.headers or {})  # Allow: the methods that it takes (RFC 9110 §15.5.6)
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    incident = secrets.token_hex(4)
    log.error("request failed", incident=incident, path=request.url.path, exc_info=error)
    return error_answer(
        500, "internal_error", f"The relay met an error of its own ({incident}).", retryable=True
    )
