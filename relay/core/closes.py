"""WebSocket close codes, and the one table from a `Reason` to what the other side can see.

From 4000 on, the range of a code says what a client should do, so a client needs no list: below 4500 it reconnects,
from 4500 it stops and tells the user. 3000, 3003 and 3008 correspond to HTTP's 401, 403 and 408 (IANA's WebSocket
close code registry).

Answers are coarse on purpose. A wrong signature, an expired token and a replayed token get the same status and
body, so that an attacker learns nothing from a refusal. The exact reason is in the audit log.
"""

from dataclasses import dataclass
from enum import IntEnum

from relay.core.errors import Reason


class CloseCode(IntEnum):
    """Every close code that the relay sends or records. They are from RFC 6455 §7.4 or the relay's own range."""

    NORMAL = 1000
    GOING_AWAY = 1001
    UNSUPPORTED_DATA = 1003
    ABNORMAL = 1006
    POLICY_VIOLATION = 1008
    TOO_LARGE = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    TOKEN_REFUSED = 3000
    NOT_ALLOWED = 3003
    TOKEN_TIMEOUT = 3008
    TOKEN_EXPIRED = 4001
    SLOW_CONSUMER = 4008
    NO_PONG = 4012
    RATE_LIMITED = 4029
    SESSION_REVOKED = 4501
    CONNECTION_LIMIT = 4503
    REPLACED = 4504


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """How the relay ends a connection: code and text of the close frame, and the reason for the audit log."""

    code: CloseCode
    text: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a refused caller gets: the HTTP `status`, or `close` on an open socket, and the public `code`."""

    status: int
    close: CloseCode
    code: str
    message: str
    retryable: bool = False


_TOKEN = Answer(
    status=401,
    close=CloseCode.TOKEN_REFUSED,
    code="invalid_token",
    message="The token was refused. Request a new one.",
)
_SESSION = Answer(
    status=401,
    close=CloseCode.TOKEN_REFUSED,
    code="invalid_session",
    message="There is no valid session. Log in again.",
)
_FORBIDDEN = Answer(
    status=403, close=CloseCode.NOT_ALLOWED, code="forbidden", message="This is not allowed for this caller."
)
_BAD_REQUEST = Answer(
    status=400, close=CloseCode.POLICY_VIOLATION, code="invalid_request", message="The request is malformed."
)
_UNAVAILABLE = Answer(
    status=503,
    close=CloseCode.TRY_AGAIN_LATER,
    code="unavailable",
    message="The service is not available now. Try again later.",
    retryable=True,
)
_LIMITED = Answer(
    status=429,
    close=CloseCode.RATE_LIMITED,
    code="rate_limited",
    message="Too many requests. Wait before the next one.",
    retryable=True,
)
_BAD_GATEWAY = Answer(
    status=502,
    close=CloseCode.TRY_AGAIN_LATER,
    code="bad_gateway",
    message="The answer of the application's server could not be passed on.",
)
_NOT_FOUND = Answer(
    status=404, close=CloseCode.NOT_ALLOWED, code="not_found", message="There is nothing here."
)
_INTERNAL = Answer(
    status=500,
    close=CloseCode.INTERNAL_ERROR,
    code="internal_error",
    message="The relay had an internal error.",
    retryable=True,
)


def _answer(status: int, close: CloseCode, code: str, message: str, *, retryable: bool = False) -> Answer:
    return Answer(status=status, close=close, code=code, message=message, retryable=retryable)


ANSWERS: dict[Reason, Answer] = {
    Reason.TOKEN_MISSING: _TOKEN,
    Reason.TOKEN_REPEATED: _BAD_REQUEST,
    Reason.TOKEN_TRANSPORT: _BAD_REQUEST,
    Reason.TOKEN_MALFORMED: _TOKEN,
    Reason.TOKEN_TOO_LARGE: _TOKEN,
    Reason.TOKEN_HEADER: _TOKEN,
    Reason.TOKEN_KEY_UNKNOWN: _TOKEN,
    Reason.TOKEN_SIGNATURE: _TOKEN,
    Reason.TOKEN_CLAIMS: _TOKEN,
    Reason.TOKEN_EXPIRED: _TOKEN,
    Reason.TOKEN_NOT_YET_VALID: _TOKEN,
    Reason.TOKEN_LIFETIME: _TOKEN,
    Reason.TOKEN_ISSUER: _TOKEN,
    Reason.TOKEN_AUDIENCE: _FORBIDDEN,
    Reason.TOKEN_ORIGIN: _FORBIDDEN,
    Reason.TOKEN_SCOPE: _TOKEN,
    Reason.TOKEN_SUBJECT: _TOKEN,
    Reason.TOKEN_REPLAYED: _TOKEN,
    # without a body: this status stops an EventSource (WHATWG HTML §9.2.3)
    Reason.SSE_RECONNECT: _answer(
        204, CloseCode.TOKEN_REFUSED, "token_used", "The token was used before. Request a new one."
    ),
    Reason.SESSION_MISSING: _SESSION,
    Reason.SESSION_REPEATED: _answer(
        401,
        CloseCode.TOKEN_REFUSED,
        "invalid_session",
        "The session cookie came with two different values. Log out, which clears both, and log in again.",
    ),
    Reason.SESSION_INVALID: _SESSION,
    Reason.SESSION_EXPIRED: _SESSION,
    Reason.SESSION_REVOKED: _SESSION,
    Reason.SESSION_RENEWABLE: _answer(
        401,
        CloseCode.TOKEN_REFUSED,
        "session_renew",
        "The access token is over. Send POST /api/auth/refresh from a script of the application, and try again.",
        retryable=True,
    ),
    Reason.SESSION_RENEWED: _answer(
        401,
        CloseCode.TOKEN_REFUSED,
        "session_renewed",
        "The session has new cookies now. Send the request again.",
        retryable=True,
    ),
    Reason.REFRESH_REFUSED: _SESSION,
    Reason.REFRESH_SPENT: _SESSION,
    Reason.CREDENTIALS_INVALID: _answer(
        401, CloseCode.TOKEN_REFUSED, "invalid_credentials", "The name or the password is wrong."
    ),
    Reason.LOGIN_REFUSED: _answer(403, CloseCode.NOT_ALLOWED, "login_refused", "The log-in was refused."),
    Reason.BACKEND_UNAVAILABLE: _UNAVAILABLE,
    Reason.BACKEND_FAULT: _answer(
        502,
        CloseCode.INTERNAL_ERROR,
        "bad_gateway",
        "The application's server gave an answer that can't be used. Trying again does not help.",
    ),
    Reason.CSRF_FAILED: _answer(
        403,
        CloseCode.NOT_ALLOWED,
        "csrf_failed",
        "The request does not come from this application's pages. "
        "Other callers must send the header X-Relay-CSRF: 1.",
    ),
    Reason.REQUEST_MALFORMED: _BAD_REQUEST,
    Reason.HEAD_TOO_LARGE: _answer(
        431, CloseCode.POLICY_VIOLATION, "too_large", "The request has too many or too long headers."
    ),
    Reason.BODY_ENCODED: _answer(
        415,
        CloseCode.UNSUPPORTED_DATA,
        "unsupported_encoding",
        "Send the body as it is, without a Content-Encoding header.",
    ),
    Reason.HANDSHAKE_MALFORMED: _BAD_REQUEST,
    Reason.NOT_AN_UPGRADE: _answer(
        426,
        CloseCode.POLICY_VIOLATION,
        "upgrade_required",
        "This address accepts WebSocket connections only.",
    ),
    Reason.METHOD_NOT_ALLOWED: _answer(
        405, CloseCode.POLICY_VIOLATION, "method_not_allowed", "A WebSocket handshake must use GET."
    ),
    Reason.PATH_UNKNOWN: _NOT_FOUND,
    Reason.ENDPOINT_UNKNOWN: _answer(
        400, CloseCode.POLICY_VIOLATION, "invalid_request", "There is no such endpoint."
    ),
    Reason.ORIGIN_MISSING: _FORBIDDEN,
    Reason.ORIGIN_REFUSED: _FORBIDDEN,
    Reason.CHANNEL_FORBIDDEN: _FORBIDDEN,
    Reason.CHANNELS_TOO_MANY: _answer(
        400, CloseCode.POLICY_VIOLATION, "too_many_channels", "The request names too many channels."
    ),
    Reason.NOTHING_GRANTED: _FORBIDDEN,
    Reason.PUBLISHER_UNKNOWN: _answer(
        401, CloseCode.TOKEN_REFUSED, "invalid_key", "The publisher key is missing or wrong."
    ),
    Reason.OPERATOR_UNKNOWN: _answer(
        401, CloseCode.TOKEN_REFUSED, "invalid_key", "The operator key is missing or wrong."
    ),
    Reason.OPERATOR_FORBIDDEN: _FORBIDDEN,
    Reason.PUBLICATION_MALFORMED: _BAD_REQUEST,
    Reason.PUBLICATION_TOO_LARGE: _answer(
        413, CloseCode.TOO_LARGE, "too_large", "The body is larger than allowed."
    ),
    # the API proxy
    Reason.PATH_REFUSED: _BAD_REQUEST,
    Reason.ROUTE_UNKNOWN: _NOT_FOUND,
    Reason.ROUTE_METHOD: _answer(
        405, CloseCode.POLICY_VIOLATION, "method_not_allowed", "This address does not take this method."
    ),
    Reason.HEADER_REFUSED: _BAD_REQUEST,
    Reason.DESTINATION_REFUSED: _FORBIDDEN,
    Reason.BODY_TOO_LARGE: _answer(413, CloseCode.TOO_LARGE, "too_large", "The body is larger than allowed."),
    Reason.BODY_STALLED: _answer(
        408, CloseCode.POLICY_VIOLATION, "body_timeout", "The body did not come in time.", retryable=True
    ),
    Reason.CALLS_TOO_MANY: _LIMITED,
    Reason.ANSWER_REFUSED: _BAD_GATEWAY,
    Reason.ANSWER_WITH_TOKEN: _BAD_GATEWAY,
    Reason.BACKEND_FAILED: _BAD_GATEWAY,
    Reason.BACKEND_TIMEOUT: _answer(
        504, CloseCode.TRY_AGAIN_LATER, "backend_timeout", "The application's server did not answer in time."
    ),
    Reason.RATE_LIMITED: _LIMITED,
    Reason.ADDRESS_LIMIT: _LIMITED,
    Reason.RELAY_FULL: _UNAVAILABLE,
    Reason.DRAINING: _UNAVAILABLE,
    Reason.STATE_UNAVAILABLE: _UNAVAILABLE,
    Reason.BROKER_UNAVAILABLE: _UNAVAILABLE,
    # as a restart: clients reconnect, and the load balancer gives them to a node that hears the engine
    Reason.NODE_BLIND: _answer(
        503,
        CloseCode.RESTART,
        "unavailable",
        "The service is not available now. Try again later.",
        retryable=True,
    ),
    Reason.KEYS_UNAVAILABLE: _UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE: _UNAVAILABLE,
    Reason.CLIENT_CLOSED: _answer(499, CloseCode.NORMAL, "closed", "The client closed the connection."),
    Reason.LINK_LOST: _answer(499, CloseCode.ABNORMAL, "link_lost", "The connection broke."),
    Reason.TOKEN_TIMEOUT: _answer(
        408, CloseCode.TOKEN_TIMEOUT, "token_timeout", "No token came in time.", retryable=True
    ),
    Reason.FRAME_MALFORMED: _answer(
        400, CloseCode.POLICY_VIOLATION, "malformed", "The frame is not a message of this protocol."
    ),
    Reason.FRAME_BINARY: _answer(
        400, CloseCode.UNSUPPORTED_DATA, "binary", "This protocol has text frames only."
    ),
    Reason.FRAME_TOO_LARGE: _answer(
        413, CloseCode.TOO_LARGE, "too_large", "The frame is larger than allowed."
    ),
    Reason.FRAMES_TOO_FAST: _LIMITED,
    Reason.CONNECTION_EXPIRED: _answer(
        401,
        CloseCode.TOKEN_EXPIRED,
        "token_expired",
        "The connection reached its maximum age.",
        retryable=True,
    ),
    Reason.KEY_REVOKED: _answer(
        401, CloseCode.TOKEN_EXPIRED, "token_expired", "The connection needs a new token.", retryable=True
    ),
    Reason.CONNECTION_REPLACED: _answer(
        409, CloseCode.REPLACED, "replaced", "A newer connection of this session replaced this one."
    ),
    Reason.CONNECTION_LIMIT: _answer(
        409,
        CloseCode.CONNECTION_LIMIT,
        "connection_limit",
        "This session has as many connections as it may have.",
    ),
    Reason.SLOW_CONSUMER: _answer(
        408, CloseCode.SLOW_CONSUMER, "slow_consumer", "The client was too slow for a stream.", retryable=True
    ),
    Reason.NO_PONG: _answer(
        408, CloseCode.NO_PONG, "no_pong", "The client sent nothing for too long.", retryable=True
    ),
    Reason.READER_STALLED: _answer(
        408, CloseCode.ABNORMAL, "reader_stalled", "The client stopped reading.", retryable=True
    ),
    Reason.SERVER_RESTARTING: _answer(
        503, CloseCode.RESTART, "restart", "The relay restarts.", retryable=True
    ),
    Reason.SERVER_STOPPING: _answer(
        503, CloseCode.GOING_AWAY, "going_away", "The relay is stopping.", retryable=True
    ),
    Reason.INTERNAL_ERROR: _INTERNAL,
}
"""The public answer for each reason. A test checks that no reason is missing."""


def answer_for(reason: Reason) -> Answer:
    """Return the coarse public answer for `reason`."""
    return ANSWERS[reason]


def close_for(reason: Reason) -> Close:
    """Return how an open connection is ended for `reason`. Its text has at most 123 bytes (RFC 6455 §5.5.1)."""
    if reason is Reason.SESSION_REVOKED:
        return Close(code=CloseCode.SESSION_REVOKED, text="session_revoked", reason=reason)
    answer = ANSWERS[reason]
    return Close(code=answer.close, text=answer.code, reason=reason)
