"""Calls to the backend's authentication routes.

A URL is made of fixed parts and never of anything that a browser sent. Each call says for whom it is made:
X-Forwarded-For and User-Agent are the browser's (`forwarded_headers`).
"""

import email.utils
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
from relay.sessions.cookies import MAX_SESSION_CHARS, is_cookie_value
from relay.sessions.upstream import NO_SESSION
from relay.web.client_identity import forwarded_headers

MAX_TOKENS_CHARS = 26_000
"""Longest tokens of a log-in together. A request has at most 32 KiB before its body, its other headers included."""
CONNECTIONS = 100
"""Most connections to the backend, for all log-ins together."""

MAX_RETRY_AFTER_S: Final = 3600.0
"""Longest wait that is passed on. A backend whose clock or unit is wrong must not lock its users out for days."""

_LOGIN = "The backend's log-in"
_REFRESH = "The backend's refresh"
_LOGOUT = "The backend's log-out"
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
    """The settings of the backend.

    Of its refusals of a log-in, only `login_codes` and `login_messages` are passed on to the browser. A 400 whose
    `error` is `invalid_grant` (RFC 6749 §5.2) or in `refresh_dead` says that a refresh token is over.
    """

    origin: str
    login_path: str
    timeout_s: float
    me_path: str = "/auth/me"
    fields: AnswerFields = AnswerFields()
    login_codes: frozenset[str] = frozenset()
    login_messages: frozenset[str] = frozenset()
    refresh_path: str = "/auth/refresh"
    refresh_dead: frozenset[str] = frozenset()
    logout_path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of a session. They go into cookies and calls to the backend, and nowhere else.

    `refresh_token` is None if the backend sent none. After a refresh the old one goes on then.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)

    @property
    def refresh_ends(self) -> float | None:
        """When the refresh token ends in Unix seconds, if there is one and it says so."""
        return None if self.refresh_token is None else _end_of(self.refresh_token)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens that there are."""
        return (self.access_token,) if self.refresh_token is None else (self.access_token, self.refresh_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn(Tokens):
    """The result of a successful log-in. `access_ends` is the end of the access token, if its session tells it."""

    user: dict[str, Any]
    access_ends: float | None = None


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
        self._login = self._client(options.login_path, _LOGIN)
        self._refresh = self._client(options.refresh_path, _REFRESH)
        self._me = self._client(options.me_path, _ME)
        self._logout = options.logout_path and self._client(options.logout_path, _LOGOUT)

    def _client(self, path: str, name: str) -> UrlClient:
        options = self._options
        return UrlClient(
            options.origin + path,
            name=name,
            timeout_s=options.timeout_s,
            connections=CONNECTIONS,
            setting="bff.backend",  # where it has no answer; what it answers depends on the path
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

    async def refresh(self, refresh_token: str, client: Client) -> Tokens | Refusal:
        """Ask for new tokens. A refusal says that the refresh token will never be good again.

        Raises:
            UnavailableError: if there is no answer, or one that says nothing about the token. If `answered` is 2xx, the
                token has been redeemed all the same.
        """
        answer = await self._refresh.post(bearer=refresh_token, headers=forwarded_headers(client))
        if 200 <= answer.status < 300:
            try:
                return self._tokens(answer, _REFRESH)
            except UnavailableError as error:
                error.answered = answer.status
                raise
        why = member(_json_object(answer) or {}, "error")
        dead = {"invalid_grant", *self._options.refresh_dead}
        if answer.status == 401 or (answer.status == 400 and isinstance(why, str) and why in dead):
            return Refusal(
                reason=Reason.REFRESH_REFUSED,
                detail=f"{_REFRESH} answered {answer.status}.",
                setting="bff.refresh",
            )
        raise refuse_status(
            _REFRESH, answer, expected="2xx with the tokens, or 401", setting="bff.refresh.path"
        )

    async def logout(self, refresh_token: str) -> Refusal | None:
        """Tell the backend that a log-in is over, if it has a route for it. Return why that failed, or None."""
        if not isinstance(self._logout, UrlClient):
            return None
        try:
            answer = await self._logout.post(bearer=refresh_token)
        except UnavailableError as error:
            return Refusal.of(error)
        if answer.status < 300 or answer.status in (401, 404):  # it knows nothing of the log-in: it is over
            return None
        return Refusal.of(refuse_status(_LOGOUT, answer, expected="2xx", setting="bff.logout_path"))

    def login_fault(self, came: str, *, expected: str, setting: str = "bff.login_path") -> UnavailableError:
        """Log what a log-in came with, and return the error to raise. `came` must quote nothing of the answer."""
        return backend_fault(_LOGIN, came=came, expected=expected, setting=setting)

    async def aclose(self) -> None:
        """Close the connections."""
        for client in (self._login, self._refresh, self._me, self._logout):
            if isinstance(client, UrlClient):
                await client.aclose()

    def _tokens(self, answer: UrlResponse, name: str) -> Tokens:
        """Return the tokens of a refresh. The backend may leave the refresh token out: then the old one goes on."""
        names = self._options.fields
        body = _json_object(answer)
        access = member(body or {}, names.access_token)
        refresh = member(body or {}, names.refresh_token) if names.refresh_token else None
        if not isinstance(access, str) or not access:
            raise _fault(
                name, answer, body, expected=f"JSON with {names.access_token} (a text)", setting="bff.fields"
            )
        tokens = Tokens(
            access_token=access, refresh_token=refresh if isinstance(refresh, str) and refresh else None
        )
        self._check_cookies(name, answer, body, tokens)
        return tokens

    def _check_cookies(
        self, name: str, answer: UrlResponse, body: Mapping[str, Any] | None, tokens: Tokens
    ) -> None:
        if not all(is_cookie_value(token) for token in tokens.tokens):
            raise _fault(
                name,
                answer,
                body,
                expected="tokens of characters that a cookie may have",
                setting="bff.fields",
            )
        lengths = [len(token) for token in tokens.tokens]
        if max(lengths) > MAX_SESSION_CHARS or sum(lengths) > MAX_TOKENS_CHARS:
            most = f"at most {MAX_SESSION_CHARS} each, {MAX_TOKENS_CHARS} together"
            raise backend_fault(
                name,
                came=f"tokens of {' and '.join(map(str, lengths))} bytes",
                expected=f"tokens that fit into cookies ({most})",
                setting="bff.fields",
            )

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
            raise _fault(
                _LOGIN, answer, body, expected=f"JSON with {', '.join(missing)}", setting="bff.fields"
            )
        tokens = LoggedIn(
            access_token=str(access),
            refresh_token=str(refresh) if names.refresh_token else None,
            user=user if isinstance(user, dict) else {},
        )
        self._check_cookies(_LOGIN, answer, body, tokens)
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


def issued_at(token: str) -> float | None:
    """Return the `iat` of a token that is a JWT, read without a check of the signature."""
    return _time_in(token, "iat")


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


def _time_in(token: str, claim: str) -> float | None:
    compact = parse_compact(token, max_bytes=len(token))
    found = compact.payload.get(claim) if isinstance(compact, Compact) else None
    return float(found) if is_unix_seconds(found) else None


def _end_of(token: str) -> float | None:
    """Return the `exp` of a token that is a JWT.

    It is read without a check of the signature: the token comes from the backend itself, and the end can only shorten
    the life of the token's own cookie.
    """
    return _time_in(token, "exp")


def _json_object(answer: UrlResponse) -> dict[str, Any] | None:
    try:
        return strict_json.parse_object(answer.body)
    except ValueError:
        return None


def _fault(
    name: str, answer: UrlResponse, body: Mapping[str, Any] | None, *, expected: str, setting: str
) -> UnavailableError:
    if body is None:
        came = f"{describe(answer)}, no JSON object"
    else:
        has = ", ".join(sorted(_USUAL_NAMES & body.keys())) or "none of the usual members"
        came = f"{describe(answer)}, a JSON object with {has}"
    return backend_fault(name, came=came, expected=expected, setting=setting)
