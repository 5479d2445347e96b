"""One request to the page server: its cookies, its user, asked once, and what is answered if there is none."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import MutableMapping
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from starlette.requests import HTTPConnection

from relay.core import strict_json
from relay.core.errors import ConfigurationError, Reason, Refusal, UnavailableError
from relay.net.http_client import UrlResponse
from relay.pages import return_to as target
from relay.pages.answers import PageAnswer, error, redirect, renewal_page, unavailable_page
from relay.pages.calls import Calls
from relay.pages.options import RENEWED, TRIED_S, PageOptions, is_protected
from relay.sessions.claims import member
from relay.sessions.cookies import SessionCookies, find_session, is_cookie_value
from relay.web.client_identity import client_reader, forwarded_headers

User = dict[str, Any]
"""The user as the backend's `/auth/me` describes it."""

SCOPE_KEY: Final = "relay.pages"
"""The scope's key for the request's `Visit`."""

_NO_SESSION: Final = frozenset({204, 302, 303, 307, 401, 403, 404, 410})
"""Statuses of `/auth/me` that mean: there is no such session. They are the same as at GET /api/auth/me of the relay."""

_SECONDS: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
"""A Retry-After that is passed on: at most some hours, and no date."""

_log = logging.getLogger("relay.pages")


class HasScope(Protocol):
    """A request of Starlette, FastAPI or Django (ASGI)."""

    @property
    def scope(self) -> MutableMapping[str, Any]:
        """The ASGI scope."""
        ...


class SessionEnded(Exception):  # noqa: N818  # it is no error of the program
    """The backend does not take the access token of this request, or there is none.

    If no view catches it, `PageBoundary` sends `answer`, also in place of the status 500 of a framework.
    """

    def __init__(self, answer: PageAnswer) -> None:
        super().__init__("The session of this request has ended.")
        self.answer = answer
        """What to answer in place of the page: the renewal of the session, or the log-in."""


async def verify_session(request: HasScope) -> User | PageAnswer:
    """Return the user of a request, or what to answer in place of the page: the log-in, the renewal, an error page.

    The backend's `/auth/me` is asked once for each request, however often this is called. Each page, route and action
    calls it for itself: a check that only a layout or a router makes is forgotten one day (CVE-2025-29927).

    Raises:
        ConfigurationError: if the application has no `PageBoundary`, or one without `backend`.
    """
    return await _visit(request).user()


def backend(request: HasScope) -> httpx.AsyncClient:
    """Return a client for calls to the backend as the user of this request. It need not be closed.

    It sends the access token of the request's own cookie, the client's address (X-Forwarded-For) and User-Agent, and
    `Cache-Control: no-store`. Paths are relative to `backend` of the boundary. It keeps no cookies and follows no
    redirects. Every status but 401 is returned.

    Raises:
        SessionEnded: here if the request has no access token; by a call if the backend answers 401.
        ConfigurationError: if the application has no `PageBoundary`, or one without `backend`; by a call to another
            origin, which must not get the token.
    """
    return _visit(request).client()


def return_to(request: HasScope, *, default: str = "/") -> str:
    """Return the page to open after the log-in: the request's `returnTo` if it is one of this origin, else `default`.

    The result is ASCII and can stand in a Location header. Escape it in HTML, as everything.
    """
    return _visit(request).return_to(default)


def _visit(request: HasScope) -> "Visit":
    visit = request.scope.get(SCOPE_KEY)
    if not isinstance(visit, Visit):
        raise ConfigurationError(
            "The application has no PageBoundary: wrap it, app = PageBoundary(app, protected=[…], backend=…)."
        )
    return visit


class Visit:
    """A request. The boundary makes it, and the functions of this module find it in the scope."""

    def __init__(self, scope: MutableMapping[str, Any], options: PageOptions, calls: Calls | None) -> None:
        self._options = options
        self._calls = calls
        self._connection = HTTPConnection(scope)
        self._method: str = scope.get("method", "GET")
        self._path: str = scope["path"]
        self._raw_path = _raw_path(scope)
        self.query, self._renewed_at = _without_mark(scope.get("query_string", b""))
        self._asked = False
        self.ended: PageAnswer | None = None
        """The answer of a `SessionEnded` that was raised, which the view may have caught."""
        self._outcome: User | PageAnswer | None = None
        self._asking: asyncio.Lock | None = None

    # --- what the boundary answers --------------------------------------------------------------------

    def boundary_answer(self) -> PageAnswer | None:
        """Return what is answered without the application, by the cookies alone; None: the application answers."""
        options, reads = self._options, self._method in ("GET", "HEAD")
        access, refresh = self._has(options.access_cookie), self._has(options.refresh_cookie)
        if self._path == options.session and reads:
            return self._renewal() if refresh else self._to_login(self._query_target(), ended=access)
        if self._path == options.login and reads and (access or refresh) and self._values("ended") != ["1"]:
            return redirect(self.return_to(options.home), self._method)
        if is_protected(self._path, options.protected) and not (access or refresh):
            return self._ended_answer()
        return None

    @property
    def is_private(self) -> bool:
        """Whether no cache may keep the answer."""
        options = self._options
        return self._asked or self._path == options.login or is_protected(self._path, options.protected)

    def _renewal(self) -> PageAnswer:
        wanted = self._query_target()
        if self._is_recent(self._values(RENEWED)):
            return self._to_login(wanted, ended=True)
        page = (
            target.checked([wanted], never=self._options.never_returned_to) if wanted else self._options.home
        )
        before, hash_sign, fragment = page.partition("#")
        mark = f"{'&' if '?' in before else '?'}{RENEWED}={int(time.time())}"
        return renewal_page(
            refresh=f"{self._options.auth_prefix}/refresh",
            following=before + mark + hash_sign + fragment,
            login=self._login_url(wanted, ended=True),
            embedded_in=self._options.embedded_in,
        )

    # --- the session --------------------------------------------------------------------------------

    async def user(self) -> User | PageAnswer:
        """See `verify_session`."""
        self._asked = True
        if self._asking is None:
            self._asking = asyncio.Lock()
        async with self._asking:  # two parts of one page may ask at the same time
            if self._outcome is None:
                self._outcome = await self._ask()
        return self._outcome

    def client(self) -> httpx.AsyncClient:
        """See `backend`."""
        self._asked = True
        token = self._access_token()
        if isinstance(token, Refusal):
            self._raise_ended()
        return self._needed_calls().client(
            {"Authorization": f"Bearer {token}", **self._about_the_client()}, on_401=self._raise_ended
        )

    async def _ask(self) -> User | PageAnswer:
        token = self._access_token()
        if isinstance(token, Refusal):
            return self._ended_answer()
        try:
            answer = await self._needed_calls().me(token, self._about_the_client())
        except UnavailableError as failed:
            _log.warning("the session can't be checked: %s", failed)
            return self._unavailable(503, None)
        if answer.status in _NO_SESSION:
            if answer.status != 401:
                _log.warning(
                    "%s answered %d, which counts as no session", self._options.me_path, answer.status
                )
            return self._ended_answer()
        if answer.status == 429 or answer.status >= 500:
            _log.warning("the session can't be checked: %s answered %d", self._options.me_path, answer.status)
            wait = answer.headers.get("retry-after", "")
            return self._unavailable(503, wait if _SECONDS.fullmatch(wait) else None)
        user = _user_in(answer, self._options.user)
        if user is None:
            # not the body: it may say who the user is
            _log.error(
                "%s answered %d without a JSON object; is me_path right?",
                self._options.me_path,
                answer.status,
            )
            return self._unavailable(502, None)
        return user

    def _access_token(self) -> str | Refusal:
        found = find_session(self._cookies, SessionCookies(names=(self._options.access_cookie,)))
        if isinstance(found, str) and not is_cookie_value(found):
            # it can't be sent in a header, either
            return Refusal(
                reason=Reason.SESSION_INVALID, detail="The cookie has characters that no token has."
            )
        return found

    def _has(self, cookie: str) -> bool:
        """Tell whether a cookie came, even one that can't be used: only the session's own check decides about that."""
        found = find_session(self._cookies, SessionCookies(names=(cookie,)))
        return not (isinstance(found, Refusal) and found.reason is Reason.SESSION_MISSING)

    @property
    def _cookies(self) -> list[str]:
        return self._connection.headers.getlist("cookie")

    def _needed_calls(self) -> Calls:
        if self._calls is None:
            raise ConfigurationError(
                "PageBoundary has no backend: give it the origin that relay.toml has in bff.backend."
            )
        return self._calls

    def _about_the_client(self) -> dict[str, str]:
        return forwarded_headers(client_reader(self._options.trusted_proxies)(self._connection))

    # --- without a session ----------------------------------------------------------------------------

    def _ended_answer(self) -> PageAnswer:
        """Return the answer if there is no access token, or the backend refused it."""
        options = self._options
        renewable = self._has(options.refresh_cookie) and not self._is_recent(self._renewed_at)
        if self._connection.headers.get("sec-fetch-dest") == "empty":
            # a script's fetch would follow a redirect, and get the log-in page as its data
            if renewable:
                return error(
                    401, "session_renew", f"POST {options.auth_prefix}/refresh, then repeat.", retryable=True
                )
            return error(401, "invalid_session", "There is no valid session. Log in again.", retryable=False)
        wanted = self._own_target()
        if renewable:
            return redirect(f"{options.session}?{target.PARAMETER}={wanted}", self._method)
        ended = self._has(options.access_cookie) or self._has(options.refresh_cookie)
        return self._to_login(wanted, ended=ended, is_escaped=True)

    def _raise_ended(self) -> NoReturn:
        self.ended = self._ended_answer()
        raise SessionEnded(self.ended)

    def _unavailable(self, status: int, retry_after: str | None) -> PageAnswer:
        if self._connection.headers.get("sec-fetch-dest") == "empty":
            return error(
                status, "unavailable", "The session can't be checked at the moment.", retryable=status == 503
            )
        wanted = self._own_target()
        return unavailable_page(
            status,
            retry=target.checked(parse_qs(f"p={wanted}").get("p", []), never=()),
            login=self._login_url(wanted, ended=True, is_escaped=True),
            retry_after=retry_after,
            embedded_in=self._options.embedded_in,
        )

    def _to_login(self, wanted: str, *, ended: bool, is_escaped: bool = False) -> PageAnswer:
        return redirect(self._login_url(wanted, ended=ended, is_escaped=is_escaped), self._method)

    def _login_url(self, wanted: str, *, ended: bool, is_escaped: bool = False) -> str:
        """Return the log-in's URL. With `ended=1` it is shown though cookies came."""
        parameters = ["ended=1"] if ended else []
        if wanted:
            parameters.append(f"{target.PARAMETER}={wanted if is_escaped else quote(wanted, safe='')}")
        return self._options.login + (f"?{'&'.join(parameters)}" if parameters else "")

    # --- returnTo -----------------------------------------------------------------------------------

    def return_to(self, default: str) -> str:
        """See the function `return_to`."""
        values = self._values(target.PARAMETER)
        return target.checked(
            values, never=self._options.never_returned_to, default=default if not values else "/"
        )

    def _query_target(self) -> str:
        """Return the `returnTo` of this request, or "" if there is none that can be used."""
        return target.checked(
            self._values(target.PARAMETER), never=self._options.never_returned_to, default=""
        )

    def _own_target(self) -> str:
        """Return this page as an escaped `returnTo`; after a POST, the form's page, which can be opened again."""
        if self._method in ("GET", "HEAD"):
            return target.escaped(self._raw_path, self.query.decode("latin-1"))
        headers = self._connection.headers
        with contextlib.suppress(ValueError):  # of an address that is none
            referer = urlsplit(headers.get("referer", ""))
            if referer.netloc and referer.netloc == headers.get("host"):
                return target.escaped(referer.path or "/", _without_mark(referer.query.encode())[0].decode())
        return quote(self._options.home, safe="")

    def _values(self, name: str) -> list[str]:
        text = self._connection.scope.get("query_string", b"").decode("latin-1")
        return parse_qs(text, keep_blank_values=True).get(name, [])

    @staticmethod
    def _is_recent(values: list[str]) -> bool:
        return any(
            text.isascii() and text.isdigit() and len(text) < 13 and abs(time.time() - int(text)) < TRIED_S
            for text in values
        )


def _raw_path(scope: MutableMapping[str, Any]) -> str:
    """Return the path as it came, escaped."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("latin-1")  # some servers leave the query in it


def _without_mark(query: bytes) -> tuple[bytes, list[str]]:
    """Return a query without the renewal's mark, and the values of the mark."""
    own = f"{RENEWED}=".encode()
    parts = query.split(b"&")
    marks = [part[len(own) :].decode("latin-1") for part in parts if part.startswith(own)]
    return (b"&".join(part for part in parts if not part.startswith(own)), marks) if marks else (query, marks)


def _user_in(answer: UrlResponse, name: str) -> User | None:
    """Return the object in the member `name`, or the whole answer if it has no such member; None if it is none."""
    if not 200 <= answer.status < 300:
        return None
    try:
        body = strict_json.parse_object(answer.body)
    except ValueError:
        return None
    user = member(body, name) if name else body
    return user if isinstance(user, dict) else body
