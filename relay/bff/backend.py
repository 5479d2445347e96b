"""Calls to the backend's authentication routes.

A URL is made of fixed parts and never of anything that a browser sent. Each call says for whom it is made:
X-Forwarded-For and User-Agent are the browser's (`forwarded_headers`).
"""

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from relay.core import strict_json
from relay.core.errors import Reason, Refusal, UnavailableError
from relay.core.events import Client
from relay.core.jws import Compact, parse_compact
from relay.net.backend_faults import backend_fault, describe, refuse_status
from relay.net.http_client import UrlClient, UrlResponse
from relay.sessions.claims import is_unix_seconds, member
from relay.sessions.cookies import is_cookie_value
from relay.sessions.upstream import NO_SESSION

CONNECTIONS = 100
"""Most connections to the backend, for all log-ins together."""

MAX_RETRY_AFTER_S: Final = 3600.0
"""Longest wait that is passed on. A backend whose clock or unit is wrong must not lock its users out for days."""

_LOGIN = "The backend's log-in"
_ME = "bff.me_path"
_WRONG_CREDENTIALS = frozenset({400, 401, 403, 422})
_USUAL_NAMES = frozenset(
    {"accessToken", "access_token", "token", "jwt", "refreshToken", "refresh_token", "user", "data", "result"}
)
"""Members that the log of a fault may name if an answer has them. Other names may be anything, even a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFields:
    """Where the members of the backend's answers are. A dot leads into an object: "data.accessToken".

    `refresh_token` and `user` may be "": the backend then has none.
    """

    access_token: str = "accessToken"  # noqa: S105  # a name
    refresh_token: str = "refreshToken"  # noqa: S105  # a name
    user: str = "user"
    code: str = "code"
    message: str = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """The settings of the backend. Of its refusals, only these codes and messages are passed on to the browser."""

    origin: str
    login_path: str
    timeout_s: float
    me_path: str = "/auth/me"
    fields: AnswerFields = AnswerFields()
    login_codes: frozenset[str] = frozenset()
    login_messages: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """The result of a successful log-in. The tokens go into cookies and nowhere else.

    `access_ends` is the end of the access token in Unix seconds, if its session tells it.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    user: dict[str, Any]
    access_ends: float | None = None

    @property
    def refresh_ends(self) -> float | None:
        """When the refresh token ends in Unix seconds, if there is one and it says so."""
        return None if self.refresh_token is None else _end_of(self.refresh_token)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of this log-in."""
        return (self.access_token,) if self.refresh_token is None else (self.access_token, self.refresh_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The backend's "no" to a log-in. `retry_after_s` is its own wait.

    `status`, `code` and `message` are those that are passed on to the browser, None: the relay's own.
    """

    refusal: Refusal
    retry_after_s: float | None = None
    status: int | None = None
    code: str | None = None
    message: str | None = None


class Backend:
    """The backend of the BFF. End it with `aclose`."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._login = UrlClient(
            options.origin + options.login_path,
            name=_LOGIN,
            timeout_s=options.timeout_s,
            connections=CONNECTIONS,
            setting="bff.login_path",
        )
        self._me = UrlClient(
            options.origin + options.me_path,
            name=_ME,
            timeout_s=options.timeout_s,
            connections=CONNECTIONS,
            setting=_ME,
        )

    async def login(self, credentials: Mapping[str, object], client: Client) -> LoggedIn | Rejected:
        """Ask the backend to check the credentials that `client` has sent.

        Raises:
            UnavailableError: if it can't be reached, or its answer can't be used.
        """
        answer = await self._login.post(credentials, headers=forwarded_headers(client))
        if 200 <= answer.status < 300:
            return self._logged_in(answer)
        if 400 <= answer.status < 500 and (rejected := self._passed_on(answer)):
            return rejected
        if answer.status in _WRONG_CREDENTIALS:
            return Rejected(refusal=Refusal(reason=Reason.CREDENTIALS_INVALID))
        if answer.status == 429:
            return Rejected(
                refusal=Refusal(reason=Reason.RATE_LIMITED, detail="The backend limits log-ins."),
                retry_after_s=retry_after_s(answer),
            )
        error = refuse_status(
            _LOGIN, answer, expected="2xx with the tokens, or 401 or 403", setting="bff.login_path"
        )
        return Rejected(refusal=Refusal.of(error), retry_after_s=retry_after_s(answer))

    async def me(self, token: str, client: Client) -> dict[str, Any] | Rejected:
        """Ask the backend for the user of an access token. Its object is in the member `user`, or the whole answer.

        Raises:
            UnavailableError: if it can't be reached, or its answer can't be used.
        """
        answer = await self._me.get(bearer=token, headers=forwarded_headers(client))
        if answer.status in NO_SESSION or answer.status == 403:
            return Rejected(
                refusal=Refusal(
                    reason=Reason.SESSION_INVALID if answer.status == 403 else Reason.SESSION_EXPIRED,
                    detail=f"{_ME} answered {answer.status}.",
                    setting=_ME,
                )
            )
        expected = "2xx with the user as a JSON object, or 401"
        if not 200 <= answer.status < 300:
            limited = answer.status == 429
            refusal = (
                Refusal(reason=Reason.RATE_LIMITED, detail="The backend limits calls.", setting=_ME)
                if limited
                else Refusal.of(refuse_status(_ME, answer, expected=expected, setting=_ME))
            )
            return Rejected(refusal=refusal, retry_after_s=retry_after_s(answer))
        body = _json_object(answer)
        if body is None:
            raise backend_fault(_ME, came=describe(answer), expected=expected, setting=_ME)
        user = member(body, self._options.fields.user)
        return user if isinstance(user, dict) else body

    def me_fault(self, came: str, *, expected: str) -> UnavailableError:
        """As `login_fault`, for the answer to `me`."""
        return backend_fault(_ME, came=came, expected=expected, setting=_ME)

    def login_fault(self, came: str, *, expected: str, setting: str = "bff.login_path") -> UnavailableError:
        """Log what a log-in came with, and return the error to raise. `came` must quote nothing of the answer."""
        return backend_fault(_LOGIN, came=came, expected=expected, setting=setting)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._login.aclose()
        await self._me.aclose()

    def _logged_in(self, answer: UrlResponse) -> LoggedIn:
        names = self._options.fields
        body = _json_object(answer)
        access, refresh, user = (
            member(body or {}, name) for name in (names.access_token, names.refresh_token, names.user)
        )
        missing = [
            f"{name} ({what})"
            for name, what, found in (
                (names.access_token, "a text", isinstance(access, str) and access),
                (names.refresh_token, "a text", isinstance(refresh, str) and refresh),
                (names.user, "an object", isinstance(user, dict)),
            )
            if name and not found
        ]
        if missing:
            raise _fault(answer, body, expected=f"JSON with {', '.join(missing)}", setting="bff.fields")
        tokens = LoggedIn(
            access_token=str(access),
            refresh_token=str(refresh) if names.refresh_token else None,
            user=user if isinstance(user, dict) else {},
        )
        if not all(is_cookie_value(token) for token in tokens.tokens):
            raise _fault(
                answer, body, expected="tokens of characters that a cookie may have", setting="bff.fields"
            )
        return tokens

    def _passed_on(self, answer: UrlResponse) -> Rejected | None:
        """Return a refusal that says why, if the settings name its code or its message."""
        options, names = self._options, self._options.fields
        body = _json_object(answer) or {}
        code, message = member(body, names.code), member(body, names.message)
        known_code = code if isinstance(code, str) and code in options.login_codes else None
        known_message = message if isinstance(message, str) and message in options.login_messages else None
        if known_code is None and known_message is None:
            return None
        return Rejected(
            refusal=Refusal(
                reason=Reason.LOGIN_REFUSED,
                detail=f"The backend answered {answer.status} with {known_code or 'a message that is passed on'}.",
                setting="bff.login_codes" if known_code else "bff.login_messages",
            ),
            retry_after_s=retry_after_s(answer),
            status=answer.status,
            code=known_code,
            message=known_message,
        )


def forwarded_headers(client: Client) -> dict[str, str]:
    """Return the headers that tell the backend for whom a call is made.

    The address is the one that the relay believes (public.trusted_proxies), and never a list that a browser sent.
    """
    headers = {"X-Forwarded-For": client.address, "User-Agent": client.user_agent}
    # a field's value can't begin or end with white space, or hold other control characters (RFC 9110 §5.5)
    clean = {name: re.sub(r"[\x00-\x1f\x7f]", "", value).strip() for name, value in headers.items()}
    return {name: value for name, value in clean.items() if value}


def retry_after_s(answer: UrlResponse) -> float | None:
    """Return the wait of a Retry-After header, seconds or a date (RFC 9110 §10.2.3), at most `MAX_RETRY_AFTER_S`.

    It is not spread over clients: each was told its own wait, and the backend knows how long it needs.
    """
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        seconds = float(value)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 1.0), MAX_RETRY_AFTER_S)


def _end_of(token: str) -> float | None:
    """Return the `exp` of a token that is a JWT.

    It is read without a check of the signature: the token comes from the backend itself, and the end can only shorten
    the life of the token's own cookie.
    """
    compact = parse_compact(token, max_bytes=len(token))
    ends = compact.payload.get("exp") if isinstance(compact, Compact) else None
    return float(ends) if is_unix_seconds(ends) else None


def _json_object(answer: UrlResponse) -> dict[str, Any] | None:
    try:
        return strict_json.parse_object(answer.body)
    except ValueError:
        return None


def _fault(
    answer: UrlResponse, body: Mapping[str, Any] | None, *, expected: str, setting: str
) -> UnavailableError:
    if body is None:
        came = f"{describe(answer)}, no JSON object"
    else:
        has = ", ".join(sorted(_USUAL_NAMES & body.keys())) or "none of the usual members"
        came = f"{describe(answer)}, a JSON object with {has}"
    return backend_fault(_LOGIN, came=came, expected=expected, setting=setting)
