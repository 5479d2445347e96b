"""ASGI middleware that lets a call through to the application once its scoped token is used up.

The token comes as `Authorization: Bearer` (RFC 6750 §2.1) and in no other way: query strings end up in logs and
histories. Refusals are coarse: one body for every 401, whatever was wrong, so that they teach an attacker nothing.
The log says which it was, with the standard library's logging because the process is somebody else's; the token
itself, or what it says, is in no line.

Plain ASGI, without a framework: it goes before any application, for HTTP and for WebSockets.
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
"""Where in the scope the claims are; Starlette's `request.state.relay_claims` has them too."""

_RETRY_AFTER_S = b"2"
_ORIGIN_REASONS = frozenset({Reason.ORIGIN_REFUSED, Reason.ORIGIN_MISSING, Reason.TOKEN_ORIGIN})

log = logging.getLogger("relay.verify")


class ScopedTokenMiddleware:
    """Asks every call to the protected paths for a scoped token."""

    def __init__(self, app: ASGIApp, verifier: Verifier, *, paths: Collection[str] | None = None) -> None:
        """Protect `paths` and all that is below them; None protects every path.

        A verifier is for one URL. A service with several gets one middleware for each, with its paths. For calls
        from pages of another origin, put a CORS middleware before this one: preflights carry no token.

        Raises:
            ConfigurationError: if `paths` would protect nothing, or is no collection of paths.
        """
        if isinstance(paths, str):
            raise ConfigurationError(f"paths is a list of paths: write ({paths!r},).")
        if paths is not None and not (paths and all(path.startswith("/") for path in paths)):
            raise ConfigurationError("paths is a list of paths that begin with /, or left out for all.")
        self._app = app
        self._verifier = verifier
        self._paths = None if paths is None else tuple(path.rstrip("/") for path in paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the call through, with its claims in the scope, or answer it."""
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
        # below a mount the path may hold the mount's or not: protected is what either reading protects
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
            # a page's GET to its own origin has no Origin, and no page can write this header itself
            origin = self._verifier.own_origin
        return await self._verifier.verify(token, origin=origin)


def _answer(reason: Reason) -> Answer:
    """Return what the caller may know: who calls from where (403), try again (503), and else nothing (401)."""
    answer = answer_for(reason)
    return answer if reason in _ORIGIN_REASONS or answer.status == 503 else answer_for(Reason.TOKEN_MISSING)


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    answer = _answer(refusal.reason)
    # of the reasons for a 503 the details are our own words; of the others they may hold what the token says
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
