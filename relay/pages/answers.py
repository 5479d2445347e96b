"""Answers in place of a page: a redirect, the renewal of the session, or what is wrong. Each is a `PageAnswer`."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from starlette.responses import Response

NO_STORE: Final = "private, no-store"
NOBODY: Final = "'none'"


class PageAnswer(Response):
    """An answer that a view returns in place of its page. Starlette and FastAPI take it as it is.

    For another framework, copy it: `HttpResponse(answer.body, status=answer.status_code, headers=dict(answer.headers))`
    is the same for Django. No cache keeps it.
    """

    def __init__(
        self,
        body: str = "",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        media: str = "text/html",
    ) -> None:
        super().__init__(body, status_code, {"Cache-Control": NO_STORE, **(headers or {})}, media)


def redirect(location: str, method: str) -> PageAnswer:
    """Return a redirect. After a POST the browser opens the new page with GET (303), so that nothing is sent twice."""
    return PageAnswer(
        status_code=307 if method in ("GET", "HEAD") else 303,
        headers={"Location": location},
        media="text/plain",
    )


def error(status: int, code: str, message: str, *, retryable: bool) -> PageAnswer:
    """Return an answer to a script, in the relay's common form of errors."""
    body = json.dumps({"code": code, "message": message, "retryable": retryable})
    return PageAnswer(body, status, media="application/json")


def renewal_page(*, refresh: str, following: str, login: str, embedded_in: Sequence[str]) -> PageAnswer:
    """Return the page that renews the session.

    Args:
        refresh: The relay's route.
        following: Where the script goes with the new cookies.
        login: Where it goes if the session is over.
        embedded_in: Origins whose pages may show it in a frame.
    """
    return _page(
        200,
        "One moment",
        "Your session is being renewed.",
        attributes={"refresh": refresh, "following": following, "login": login},
        script=_SCRIPT,
        embedded_in=embedded_in,
        more="<noscript><p>This needs JavaScript. You can also "
        f'<a href="{escape(login)}">log in again</a>.</p></noscript>',
    )


def unavailable_page(
    status: int, *, retry: str, login: str, retry_after: str | None, embedded_in: Sequence[str]
) -> PageAnswer:
    """Return the page that says that the session can't be checked. `retry` is the page that was wanted."""
    wait = retry_after or ("5" if status == 503 else None)
    why = (
        "The server that checks your session does not answer at the moment."
        if status == 503
        else "The server that checks your session gave an answer that this site does not understand."
    )
    return _page(
        status,
        "This page can't be shown now",
        f"{why} You are still logged in.",
        more=f'<p><a href="{escape(retry)}">Try again</a> or <a href="{escape(login)}">log in again</a>.</p>',
        headers={"Retry-After": wait} if wait else {},
        embedded_in=embedded_in,
    )


def _static(name: str) -> str:
    return files("relay.pages").joinpath("static", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_SCRIPT: Final = _static("renewal.js")
_STYLE: Final = _static("page.css")
_TEMPLATE: Final = Template(_static("page.html"))


def _page(
    status: int,
    title: str,
    text: str,
    *,
    more: str,
    embedded_in: Sequence[str],
    attributes: Mapping[str, str] | None = None,
    script: str = "",
    headers: Mapping[str, str] | None = None,
) -> PageAnswer:
    """Return a page whose only script and style are these, told by their hashes (CSP 3 §2.3.1)."""
    body = _TEMPLATE.substitute(
        title=escape(title),
        text=escape(text),
        style=_STYLE,
        more=more,
        attributes="".join(f' data-{name}="{escape(value)}"' for name, value in (attributes or {}).items()),
        script=f"<script>{script}</script>" if script else "",
    )
    policy = (
        f"default-src 'none'; style-src {_hash(_STYLE)}; "
        + (f"script-src {_hash(script)}; connect-src 'self'; " if script else "")
        + f"base-uri 'none'; form-action 'none'; frame-ancestors {' '.join(embedded_in) or NOBODY}"
    )
    return PageAnswer(
        body,
        status,
        {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            **(headers or {}),
        },
    )
