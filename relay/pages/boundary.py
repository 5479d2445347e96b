"""The boundary of the pages, ASGI middleware: is there a cookie at all? It calls nobody.

It is plain ASGI and works around any application. It serves the page that renews a session, and turns a `SessionEnded`
that no view has caught into the way to the log-in.
"""

from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any

from relay.pages.answers import NO_STORE
from relay.pages.calls import Calls
from relay.pages.options import checked_options
from relay.pages.visit import SCOPE_KEY, SessionEnded, Visit

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class PageBoundary:
    """Sends visitors without a cookie from the protected pages to the log-in, and everybody else on to the page."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        protected: Collection[str],
        backend: str | None = None,
        login: str = "/login",
        home: str = "/",
        session: str = "/session",
        access_cookie: str = "__Host-access-token",
        refresh_cookie: str = "__Host-refresh-token",
        me_path: str = "/auth/me",
        user: str = "user",
        auth_prefix: str = "/api/auth",
        trusted_proxies: Sequence[str] = (),
        embedded_in: Sequence[str] = (),
        timeout_s: float = 5.0,
    ) -> None:
        """Wrap the application. What the relay also has must be the same in its relay.toml, which is named here.

        Args:
            app: The application.
            protected: Paths of pages, each with all paths below it. "/" is that one page.
            backend: Origin of the backend (`bff.backend`). Without it there is the boundary only, and `verify_session`
                and `backend` raise.
            login: Path of the application's log-in page. It must not be protected.
            home: Path to which a user with a cookie is sent who opens the log-in.
            session: Path at which this middleware serves the page that renews a session.
            access_cookie: Name of the access token's cookie (`session.cookie`).
            refresh_cookie: Name of the refresh token's cookie (`bff.refresh_cookie`).
            me_path: Path of the backend's route that describes the user (`bff.me_path`).
            user: Member of its answer with the user (`bff.fields.user`). If there is none, the answer is the user.
            auth_prefix: Where browsers reach the relay's refresh.
            trusted_proxies: Addresses or networks of proxies whose X-Forwarded-For is believed
                (`public.trusted_proxies`).
            embedded_in: Origins whose pages may show the application in a frame (`bff.same_site = "none"`). The
                application's own policy must say the same (`frame-ancestors`).
            timeout_s: Seconds that the backend may take for `/auth/me` as a whole, and in other calls for each read.

        Raises:
            ConfigurationError: if an argument can't work. The text names it.
        """
        self._app = app
        self._options = checked_options(
            protected=protected,
            backend=backend,
            paths={
                "login": login,
                "home": home,
                "session": session,
                "me_path": me_path,
                "auth_prefix": auth_prefix,
            },
            access_cookie=access_cookie,
            refresh_cookie=refresh_cookie,
            user=user,
            timeout_s=timeout_s,
            trusted_proxies=trusted_proxies,
            embedded_in=embedded_in,
        )
        self._calls = None if backend is None else Calls(backend, me_path=me_path, timeout_s=timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer in place of the application."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self.aclose()
            return
        visit = Visit(scope, self._options, self._calls)
        inner = {**scope, SCOPE_KEY: visit, "query_string": visit.query}
        if scope["type"] != "http":
            await self._app(inner, receive, send)
            return
        if (answer := visit.boundary_answer()) is not None:
            await answer(scope, receive, send)
            return
        started = replaced = False

        async def send_private(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                if message["status"] == 500 and visit.ended is not None:
                    # a framework inside has caught the exception: Starlette's outermost middleware, and Django
                    replaced = True
                    await visit.ended(scope, receive, send)
                headers = list(message.get("headers", ()))
                if visit.is_private and not any(name.lower() == b"cache-control" for name, _ in headers):
                    message = {**message, "headers": [*headers, (b"cache-control", NO_STORE.encode())]}
            if not replaced:
                await send(message)

        try:
            await self._app(inner, receive, send_private)
        except SessionEnded as ended:
            if started and not replaced:
                raise
            if not started:
                await ended.answer(scope, receive, send)

    async def aclose(self) -> None:
        """Close the connections to the backend. The end of the ASGI lifespan does it; Django has none."""
        if self._calls is not None:
            await self._calls.aclose()
