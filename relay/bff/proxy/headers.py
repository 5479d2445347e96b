"""The headers that go on, in both directions. Everything that no list names is dropped.

A list of what to remove would always miss one: `X-HTTP-Method-Override` and `X-Original-URL` change a request after it
was checked, `X_Forwarded_For` is `X-Forwarded-For` for CGI, and `Clear-Site-Data` logs a user out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin

from relay.bff.proxy.paths import PREFIX

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case with their values, as ASGI and h11 have them."""

REQUEST_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-language",
        "content-type",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
        "idempotency-key",
        "traceparent",
    }
)
"""Request headers that always go on. `bff.proxy.request_headers` adds to them."""
RESPONSE_HEADERS: Final = frozenset(
    {
        "content-type",
        "content-language",
        "content-disposition",
        "etag",
        "last-modified",
        "content-range",
        "accept-ranges",
        "retry-after",
        "location",
    }
)
"""Response headers that always go on. `bff.proxy.response_headers` adds to them."""

_HOP_BY_HOP: Final = frozenset(
    {"connection", "expect", "http2-settings", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_NEVER_UP: Final = _HOP_BY_HOP | {
    "accept-encoding",
    "authorization",
    "content-length",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-real-ip",
    "x-relay-csrf",
    "x-rewrite-url",
}
_NEVER_DOWN: Final = _HOP_BY_HOP | {
    "alt-svc",
    "cache-control",
    "clear-site-data",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "expires",
    "pragma",
    "refresh",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "sourcemap",
    "strict-transport-security",
    "www-authenticate",
    "x-accel-buffering",
    "x-accel-redirect",
    "x-content-type-options",
    "x-frame-options",
    "x-sendfile",
}
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_OWN: Final = (
    (b"cache-control", b"private, no-store"),
    # a document of the backend that is opened all the same is in an origin of its own and runs nothing
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
OF_THE_BYTES: Final = frozenset({b"etag", b"accept-ranges", b"content-range"})
"""Headers that describe the backend's bytes. They are wrong for a body that was decoded or filtered."""


def check_request_name(name: str) -> str:
    """Return the name of a request header that settings may add, in lower case.

    Raises:
        ValueError: if such a header must never go on. The text ends a sentence that begins with the setting.
    """
    name = name.lower()
    if name in _NEVER_UP or name.startswith(("proxy-", "sec-", "x-forwarded-")):
        raise ValueError(
            f"must not have {name}: the relay sets it itself, or the backend would believe the browser"
        )
    return _checked(name)


def check_response_name(name: str) -> str:
    """Return the name of a response header that settings may add, in lower case. Raises as `check_request_name`."""
    name = name.lower()
    if name in _NEVER_DOWN or name.startswith(("proxy-", "access-control-")):
        raise ValueError(f"must not have {name}: the relay sets it itself, or it must not reach a browser")
    return _checked(name)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must have names of 1 to 64 letters, digits and -; names with _ are never passed on")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderLists:
    """What the settings add to the lists of this module: headers and cookies, by name."""

    request: frozenset[str] = frozenset()
    response: frozenset[str] = frozenset()
    request_cookies: frozenset[str] = frozenset()
    response_cookies: frozenset[str] = frozenset()
    _up: frozenset[bytes] = field(init=False, repr=False, default=frozenset())
    _down: frozenset[bytes] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        up = (REQUEST_HEADERS | self.request) - _NEVER_UP
        down = (RESPONSE_HEADERS | self.response) - _NEVER_DOWN
        object.__setattr__(self, "_up", frozenset(name.encode() for name in up))
        object.__setattr__(self, "_down", frozenset(name.encode() for name in down))

    def upward(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the request headers that go on, and the Cookie header if the settings name cookies."""
        named = _named_by_connection(headers)
        if b"," in (one_value(headers, b"range") or b","):  # several parts: then the whole is asked for
            named |= {b"range"}
        # white space around a value is no part of it (RFC 9110 §5.5), and h11 takes none
        kept = [
            (name, value.strip(b" \t")) for name, value in headers if name in self._up and name not in named
        ]
        if self.request_cookies:
            pairs = [pair for pair in _cookies(headers) if pair.partition("=")[0] in self.request_cookies]
            if pairs:
                kept.append((b"cookie", "; ".join(pairs).encode("latin-1")))
        return kept

    def downward(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the response headers that go on, without the relay's own ones. A broken value is dropped."""
        named = _named_by_connection(headers)
        kept = [
            (name, value)
            for name, value in headers
            if name in self._down and name not in named and _VALUE.fullmatch(value)
        ]
        if self.response_cookies:
            kept += [
                (name, value)
                for name, value in headers
                if name == b"set-cookie"
                and self._may_set(value.decode("latin-1"))
                and _VALUE.fullmatch(value)
            ]
        return kept

    def _may_set(self, cookie: str) -> bool:
        name, separator, _ = cookie.partition(";")[0].partition("=")
        return bool(separator) and name.strip(" \t") in self.response_cookies


def own_headers(*, attachment: bool, disposition: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Return the headers that every proxied answer has from the relay.

    With `attachment`, a browser saves the answer and never shows it as a page. `disposition` is the backend's value.
    """
    headers = list(_OWN)
    if attachment and not disposition.lower().startswith(b"attachment"):
        headers.append((b"content-disposition", b"attachment"))
    elif disposition:
        headers.append((b"content-disposition", disposition))
    return headers


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Return the fields that belong to one hop only, because Connection names them (RFC 9110 §7.6.1)."""
    values = [value for name, value in headers if name == b"connection"]
    if not values:
        return frozenset()
    return frozenset(one.strip(b" \t").lower() for value in values for one in value.split(b","))


def _cookies(headers: Headers) -> Iterator[str]:
    for name, value in headers:
        if name == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, separator, content = part.partition("=")
                if separator:
                    # white space of RFC 6265 §5.2 only, as in `relay.sessions.cookies`
                    yield key.strip(" \t") + "=" + content.strip(" \t")


_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_LOCATION: Final = re.compile(r"[\x21-\x5b\x5d-\x7e]+")


def location_below_proxy(location: bytes, *, origin: str, path: bytes) -> bytes | None:
    """Return a Location of the backend as the browser may follow it, or None if it leads somewhere else.

    `origin` is the backend's, `path` the one of the request, to which a relative Location refers.
    """
    text = location.decode("latin-1")
    if not _LOCATION.fullmatch(text):  # a backslash is a slash for browsers
        return None
    if text.startswith("//"):
        text = origin.partition("//")[0] + text
    if _SCHEME.match(text):
        rest = text[len(origin) :]
        # http://backend:9000.evil.example begins with the origin, too
        if not text.lower().startswith(origin) or rest[:1] not in ("", "/", "?", "#"):
            return None
    else:
        rest = urljoin(origin + path.decode("ascii"), text)[len(origin) :]
    if rest.startswith("//"):
        return None
    return PREFIX[:-1] + (rest if rest.startswith("/") else "/" + rest).encode("ascii")


def one_value(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a header that must come once; b"" if it is missing, None if it came twice."""
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        return None
    return values[0] if values else b""
