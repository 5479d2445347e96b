"""ASGI middleware that passes a request on to the application after its scoped token was checked and used up.

The token is accepted only as `Authorization: Bearer` (RFC 6750 §2.1), because query strings end up in logs and
histories. Every 401 has the same body, so that an attacker does not learn the reason. The reason is in the log. It uses
the standard library's logging, as the service may; no line contains the token or its claims.

It is plain ASGI, without a framework, and works for HTTP and WebSockets.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any

from relay.core.bearer import bearer_token
from relay.core.closes import Answer, answer_for
from relay.core.errors import ConfigurationError, Reason, Refusal
from relay.core.tokens import Claims
from relay.verify.verifier import Verifier

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CLAIMS_KEY = "relay.claims"
"""The scope's key for the claims. Starlette's `request.state.relay_claims` has them too."""

_RETRY_AFTER_S = b"2"
_ORIGIN_REASONS = frozenset({Reason.ORIGIN_REFUSED, Reason.ORIGIN_MISSING, Reason.TOKEN_ORIGIN})

log = logging.getLogger("relay.verify")


class ScopedTokenMiddleware:
    """Requires a scoped token for every request to the protected paths."""

    def __init__(self, app: ASGIApp, verifier: Verifier, *, paths: Collection[str] | None = None) -> None:
        """Protect `paths` and all paths below them; None protects every path.

        A verifier is for one URL. A service with several URLs needs one middleware for each, with its paths. For
        requests from pages of another origin, put a CORS middleware before this one, because preflights have no token.

        Raises:
            ConfigurationError: if `paths` is empty, or not a collection of paths.
        """
        if isinstance(paths, str):
            raise ConfigurationError(f"paths must be a list of paths, not a string: write ({paths!r},).")
        if paths is not None and not (paths and all(path.startswith("/") for path in paths)):
            raise ConfigurationError(
                "paths must be a list of paths that begin with /; leave it out to protect all paths."
            )
        self._app = app
        self._verifier = verifier
        self._paths = None if paths is None else tuple(path.rstrip("/") for path in paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its claims in the scope, or refuse it."""
        if scope["type"] == "lifespan" or not self._protects(scope):
            await self._app(scope, receive, send)
            return
        checked = await self._check(scope["headers"])
        if isinstance(checked, Refusal):
            await _refuse(checked, scope, receive, send)
            return
        scope[CLAIMS_KEY] = checked
        scope.setdefault("state", {})["relay_claims"] = checked
        await self._app(scope, receive, send)

    def _protects(self, scope: Scope) -> bool:
        if self._paths is None:
            return True
        # below a mount the path may contain the mount's own or not: a path that either form protects is protected
        path: str = scope["path"]
        inner = path.removeprefix(scope.get("root_path", ""))
        return any(seen == own or seen.startswith(f"{own}/") for own in self._paths for seen in (path, inner))

    async def _check(self, headers: Iterable[tuple[bytes, bytes]]) -> Claims | Refusal:
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            found.setdefault(name, []).append(value)
        origins = found.get(b"origin", [])
        if len(origins) > 1:
            return Refusal(reason=Reason.ORIGIN_REFUSED)
        token = bearer_token([value.decode("latin-1") for value in found.get(b"authorization", [])])
        if isinstance(token, Refusal):
            return token
        origin = origins[0].decode("latin-1") if origins else ""
        if not origins and found.get(b"sec-fetch-site") == [b"same-origin"]:
            # a page's GET to its own origin has no Origin header, and no page can set Sec-Fetch-Site
            origin = self._verifier.own_origin
        return await self._verifier.verify(token, origin=origin)


def _answer(reason: Reason) -> Answer:
    """Return the caller's answer: 403 for a wrong origin, 503 for "try again", and 401 for every other reason."""
    answer = answer_for(reason)
    return answer if reason in _ORIGIN_REASONS or answer.status == 503 else answer_for(Reason.TOKEN_MISSING)


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    answer = _answer(refusal.reason)
    # the details of a 503 are this package's own texts; those of other reasons may contain claims of the token
    detail = f" ({refusal.detail})" if answer.status == 503 else ""
    log.log(
        logging.WARNING if detail else logging.INFO,
        "scoped token refused: %s%s",
        refusal.reason.value,
        detail,
    )
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect, which may be answered from then on
        kind = "websocket.http.response"
        if kind not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": answer.close.value, "reason": answer.code})
            return
    body = json.dumps(
        {"code": answer.code, "message": answer.message, "retryable": answer.retryable}
    ).encode()
    headers = _headers(refusal.reason, answer.status, len(body))
    await send({"type": f"{kind}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def _headers(reason: Reason, status: int, length: int) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(length).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        # RFC 6750 §3.1: a call that brought no credential is told of no error
        error = b"" if reason is Reason.TOKEN_MISSING else b', error="invalid_token"'
        headers.append((b"www-authenticate", b'Bearer realm="scoped token"' + error))
    if status == 503:
        headers.append((b"retry-after", _RETRY_AFTER_S))
    return headers
