"""All checks of a proxied request's head, in their order, before anything is sent to the backend."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from relay.bff.proxy.field_filter import FieldFilter
from relay.bff.proxy.headers import HeaderLists, Headers
from relay.bff.proxy.paths import PathTable, Target, read_target
from relay.core.errors import Reason, Refusal

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Methods that a route may have. HEAD comes with GET, and OPTIONS is answered by the relay."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that need no proof of the application's page (RFC 9110 §9.2.1)."""

CHUNKED: Final = -1
"""The length of a body whose end is not known yet."""

_RUNS: Final = frozenset(
    {
        b"audioworklet",
        b"embed",
        b"fencedframe",
        b"frame",
        b"iframe",
        b"manifest",
        b"object",
        b"paintworklet",
        b"script",
        b"serviceworker",
        b"sharedworker",
        b"style",
        b"worker",
        b"xslt",
    }
)
"""Values of Sec-Fetch-Dest with which a browser runs an answer, or shows it within a page."""


_LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length that fits in 64 bits everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRoute:
    """A prefix of the settings: the methods that go on, and the fields that are removed from its answers."""

    methods: frozenset[str]
    strip: FieldFilter | None = None

    @property
    def allow(self) -> str:
        """Return the value of the Allow header."""
        return ", ".join([*sorted(self.methods), "OPTIONS"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRequest:
    """A request that may go on, as far as its head tells. `body` is its length, None or `CHUNKED`."""

    target: Target
    prefix: str
    route: ProxyRoute
    method: str
    headers: list[tuple[bytes, bytes]]
    """Those of the browser that go on."""
    body: int | None
    attachment: bool
    """Whether a browser would show the answer as a page."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is refused, with the prefix of its route if that was found. `close`: nothing may follow it."""

    refusal: Refusal
    prefix: str = ""
    allow: str = ""
    close: bool = False


class RequestChecks:
    """The checks with the routes of the settings."""

    def __init__(
        self,
        routes: Mapping[str, ProxyRoute],
        *,
        forbidden: Iterable[str],
        max_body_bytes: int,
        lists: HeaderLists,
    ) -> None:
        """`forbidden`: see `PathTable`."""
        self._table: PathTable[ProxyRoute] = PathTable(routes, forbidden=forbidden)
        self._max_body_bytes = max_body_bytes
        self._lists = lists
        self._encoded = "content-encoding" in lists.request

    def check(self, method: str, target: bytes, headers: Headers) -> CheckedRequest | Denied:
        """Check the request line and the headers. `target` is what the client sent, byte for byte."""
        if refusal := _framing(headers):
            return Denied(refusal, close=True)
        read = read_target(target)
        if isinstance(read, Refusal):
            return Denied(read)
        if refusal := self._header(headers):
            return Denied(refusal)
        found = self._table.find(read)
        if isinstance(found, Refusal):
            return Denied(found)
        prefix, route = found
        if method not in route.methods and method != "OPTIONS":
            return Denied(
                Refusal(reason=Reason.ROUTE_METHOD, detail=f"{prefix} does not have {method[:16]}."),
                prefix,
                route.allow,
            )
        if _runs(headers):
            return Denied(Refusal(reason=Reason.DESTINATION_REFUSED), prefix)
        body = _body(headers)
        if body is not None and body > self._max_body_bytes:
            return Denied(Refusal(reason=Reason.BODY_TOO_LARGE), prefix)
        return CheckedRequest(
            target=read,
            prefix=prefix,
            route=route,
            method=method,
            headers=self._lists.upward(headers),
            body=body,
            attachment=_is_navigation(headers),
        )

    def _header(self, headers: Headers) -> Refusal | None:
        for name, _ in headers:
            if name == b"upgrade":  # the listener hands it on as a plain request
                return Refusal(reason=Reason.HEADER_REFUSED, detail="The request has an Upgrade header.")
            if b"_" in name:  # CGI makes the same variable of `_` and `-`
                return Refusal(reason=Reason.HEADER_REFUSED, detail="A header's name has an underscore.")
            if name == b"content-encoding" and not self._encoded:
                return Refusal(reason=Reason.BODY_ENCODED)
        return None


def _framing(headers: Headers) -> Refusal | None:
    """Refuse a body whose end two servers could see at different places (request smuggling).

    The listener's parser refuses these, too. It has started the request by then, so they are looked at here once more.
    """
    encodings = [value.strip(b" \t").lower() for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if (
        len(encodings) + len(lengths) > 1
        or any(encoding != b"chunked" for encoding in encodings)
        or any(not length.isdigit() or len(length) > _LENGTH_DIGITS for length in lengths)
    ):
        return Refusal(reason=Reason.HEADER_REFUSED, detail="The length of the body is not certain.")
    return None


def _body(headers: Headers) -> int | None:
    """Return the length of the body. `_framing` has found at most one of the two headers."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return CHUNKED
        if name == b"content-length":
            return int(value)
    return None


def _runs(headers: Headers) -> bool:
    return any(
        (name == b"sec-fetch-dest" and value.strip(b" \t").lower() in _RUNS) or name == b"service-worker"
        for name, value in headers
    )


def _is_navigation(headers: Headers) -> bool:
    """Tell whether a browser asks for a page. Browsers without Fetch Metadata are known by their Accept header."""
    mode = dest = accept = b""
    for name, value in headers:
        if name == b"sec-fetch-mode":
            mode = value.lower()
        elif name == b"sec-fetch-dest":
            dest = value.lower()
        elif name == b"accept":
            accept += value.lower()
    return mode == b"navigate" or dest == b"document" or (not mode and b"text/html" in accept)
