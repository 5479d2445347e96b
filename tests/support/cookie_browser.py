"""A browser as the relay sees it: the cookies that it keeps, and what a script of the application sends."""

import json
from typing import Any

from tests.support.raw_http import Answer, exchange, head
from tests.support.relay_process import Relay


class Browser:
    """The cookies of one browser, and what it sends. `origin` is of its page: by default the relay's."""

    def __init__(self, relay: Relay, user: str = "", origin: str = "", **cookies: str) -> None:
        self.relay = relay
        self.user = user
        self.origin = origin or relay.url
        self.cookies = cookies

    def copy(self, relay: Relay | None = None) -> "Browser":
        """Return a browser with the same cookies, at this or another relay, whose page it shows then."""
        return Browser(relay or self.relay, self.user, "" if relay else self.origin, **self.cookies)

    def at(self, relay: Relay) -> "Browser":
        """Return a browser with the same cookies and page, whose requests go to another relay."""
        return Browser(relay, self.user, self.origin, **self.cookies)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The headers that a script of the application sends."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return [("Origin", self.origin)] + ([("Cookie", cookie)] if cookie else [])

    async def send(self, method: str, path: str, body: Any = None, *, fields: Any = None) -> Answer:
        """Send a request, and keep the cookies of its answer."""
        content = b"" if body is None else json.dumps(body).encode()
        first = [("Host", "127.0.0.1"), ("Content-Length", str(len(content)))]
        if body is not None:
            first.append(("Content-Type", "application/json"))
        answer = await exchange(
            self.relay.ports[0], head(method, path, [*first, *(fields or self.fields)]) + content
        )
        for text in answer.all("set-cookie"):
            name, _, value = text.partition(";")[0].partition("=")
            if "Max-Age=0" in text:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer

    async def login(self, user: str) -> None:
        self.user = user
        assert (await self.send("POST", "/api/auth/login", {"email": user, "password": "p"})).status == 200

    async def refresh(self) -> Answer:
        return await self.send("POST", "/api/auth/refresh")

    async def me(self) -> Answer:
        return await self.send("GET", "/api/auth/me")

    async def ask(self) -> Answer:
        return await self.send("POST", "/auth/ws-token")

    async def proxy(self) -> Answer:
        return await self.send("GET", "/api/proxy/users")

    def lose_access(self) -> None:
        """The access cookie ends with its token."""
        self.cookies.pop("access-token", None)

    @property
    def is_logged_in(self) -> bool:
        return "refresh-token" in self.cookies
