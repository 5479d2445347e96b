"""The reasons of refusals, and the exceptions of this package.

A refusal is a value and not an exception. A check returns a `Refusal` with one `Reason`. The audit record, the HTTP
answer and the close code are all made from this value (`relay.core.closes` has the table). An exception means that
the caller can't continue:

    RelayError
    ├── ConfigurationError    settings, key files or arguments that a person must correct
    ├── MalformedError        input with a wrong form; `.detail` is one sentence for its sender
    └── UnavailableError      a part that must answer did not (state store, audit log, session backend)

The names of the reasons follow RFC 6750 §3.1 and RFC 9068 §4 where these have a word.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Every reason that appears as `event.reason` in the audit log. `EXPLANATIONS` has a sentence for each."""

    # the token itself
    TOKEN_MISSING = "token_missing"
    TOKEN_REPEATED = "token_repeated"
    TOKEN_TRANSPORT = "token_transport"
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_TOO_LARGE = "token_too_large"
    TOKEN_HEADER = "token_header"
    TOKEN_KEY_UNKNOWN = "token_key_unknown"
    TOKEN_SIGNATURE = "token_signature"
    TOKEN_CLAIMS = "token_claims"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    TOKEN_LIFETIME = "token_lifetime"
    TOKEN_ISSUER = "token_issuer"
    TOKEN_AUDIENCE = "token_audience"
    TOKEN_ORIGIN = "token_origin"
    TOKEN_SCOPE = "token_scope"
    TOKEN_SUBJECT = "token_subject"
    TOKEN_REPLAYED = "token_replayed"
    SSE_RECONNECT = "sse_reconnect"
    # the session of a request
    SESSION_MISSING = "session_missing"
    SESSION_REPEATED = "session_repeated"
    SESSION_INVALID = "session_invalid"
    SESSION_EXPIRED = "session_expired"
    SESSION_REVOKED = "session_revoked"
    SESSION_RENEWABLE = "session_renewable"
    SESSION_RENEWED = "session_renewed"
    REFRESH_REFUSED = "refresh_refused"
    REFRESH_SPENT = "refresh_spent"
    CREDENTIALS_INVALID = "credentials_invalid"
    LOGIN_REFUSED = "login_refused"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    BACKEND_FAULT = "backend_fault"
    # the request
    CSRF_FAILED = "csrf_failed"
    REQUEST_MALFORMED = "request_malformed"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_ENCODED = "body_encoded"
    HANDSHAKE_MALFORMED = "handshake_malformed"
    NOT_AN_UPGRADE = "not_an_upgrade"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    PATH_UNKNOWN = "path_unknown"
    ENDPOINT_UNKNOWN = "endpoint_unknown"
    ORIGIN_MISSING = "origin_missing"
    ORIGIN_REFUSED = "origin_refused"
    CHANNEL_FORBIDDEN = "channel_forbidden"
    CHANNELS_TOO_MANY = "channels_too_many"
    NOTHING_GRANTED = "nothing_granted"
    PUBLISHER_UNKNOWN = "publisher_unknown"
    OPERATOR_UNKNOWN = "operator_unknown"
    OPERATOR_FORBIDDEN = "operator_forbidden"
    PUBLICATION_MALFORMED = "publication_malformed"
    PUBLICATION_TOO_LARGE = "publication_too_large"
    # the API proxy
    PATH_REFUSED = "path_refused"
    ROUTE_UNKNOWN = "route_unknown"
    ROUTE_METHOD = "route_method"
    HEADER_REFUSED = "header_refused"
    DESTINATION_REFUSED = "destination_refused"
    BODY_TOO_LARGE = "body_too_large"
    BODY_STALLED = "body_stalled"
    CALLS_TOO_MANY = "calls_too_many"
    ANSWER_REFUSED = "answer_refused"
    ANSWER_WITH_TOKEN = "answer_with_token"
    BACKEND_FAILED = "backend_failed"
    BACKEND_TIMEOUT = "backend_timeout"
    # load and state
    RATE_LIMITED = "rate_limited"
    ADDRESS_LIMIT = "address_limit"
    RELAY_FULL = "relay_full"
    DRAINING = "draining"
    STATE_UNAVAILABLE = "state_unavailable"
    BROKER_UNAVAILABLE = "broker_unavailable"
    NODE_BLIND = "node_blind"
    KEYS_UNAVAILABLE = "keys_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    # how a connection ended
    CLIENT_CLOSED = "client_closed"
    LINK_LOST = "link_lost"
    TOKEN_TIMEOUT = "token_timeout"
    FRAME_MALFORMED = "frame_malformed"
    FRAME_BINARY = "frame_binary"
    FRAME_TOO_LARGE = "frame_too_large"
    FRAMES_TOO_FAST = "frames_too_fast"
    CONNECTION_EXPIRED = "connection_expired"
    KEY_REVOKED = "key_revoked"
    CONNECTION_REPLACED = "connection_replaced"
    CONNECTION_LIMIT = "connection_limit"
    SLOW_CONSUMER = "slow_consumer"
    NO_PONG = "no_pong"
    READER_STALLED = "reader_stalled"
    SERVER_RESTARTING = "server_restarting"
    SERVER_STOPPING = "server_stopping"
    INTERNAL_ERROR = "internal_error"


EXPLANATIONS: dict[Reason, str] = {
    Reason.TOKEN_MISSING: "No scoped token came with the request.",
    Reason.TOKEN_REPEATED: "More than one scoped token came with the request.",
    Reason.TOKEN_TRANSPORT: "The token was sent in a way that tokens.transports does not allow.",
    Reason.TOKEN_MALFORMED: "The token is not three base64url parts that hold strict JSON.",
    Reason.TOKEN_TOO_LARGE: "The token is longer than 4096 bytes.",
    Reason.TOKEN_HEADER: "The token's header has other members than typ, alg and kid, or another value in them.",
    Reason.TOKEN_KEY_UNKNOWN: "No key with the token's kid is known.",
    Reason.TOKEN_SIGNATURE: "The token's signature is wrong.",
    Reason.TOKEN_CLAIMS: "A claim of the token is missing, empty or of the wrong type.",
    Reason.TOKEN_EXPIRED: "The token's exp has passed.",
    Reason.TOKEN_NOT_YET_VALID: "The token's nbf or iat is in the future.",
    Reason.TOKEN_LIFETIME: "The token claims a longer lifetime than tokens may have.",
    Reason.TOKEN_ISSUER: "The token was issued by another issuer.",
    Reason.TOKEN_AUDIENCE: "The token is for another endpoint.",
    Reason.TOKEN_ORIGIN: "The token was requested from another browser origin than the one that connects.",
    Reason.TOKEN_SCOPE: "The token's scope is not the one that this service accepts.",
    Reason.TOKEN_SUBJECT: "The token that was sent to refresh a connection belongs to another user.",
    Reason.TOKEN_REPLAYED: "The token was used before.",
    Reason.SSE_RECONNECT: "An EventSource connected again by itself, with the token that it had used before.",
    Reason.SESSION_MISSING: "Neither a session cookie nor an Authorization header came with the request.",
    Reason.SESSION_REPEATED: "The session cookie came with two values. Another site of the domain may have set one.",
    Reason.SESSION_INVALID: "The session's token has a wrong signature, form or purpose.",
    Reason.SESSION_EXPIRED: "The session's token has expired.",
    Reason.SESSION_REVOKED: "The session was logged out or revoked.",
    Reason.SESSION_RENEWABLE: "The access token is missing or over. A page load renews nothing; a script can.",
    Reason.SESSION_RENEWED: "The backend answered 401 to a call with a body. The session was renewed for the next try.",
    Reason.REFRESH_REFUSED: "The backend refused the refresh token for good.",
    Reason.REFRESH_SPENT: "The refresh token was redeemed before, and the browser has shown a newer one since.",
    Reason.CREDENTIALS_INVALID: "The backend refused the name or the password.",
    Reason.LOGIN_REFUSED: "The backend refused the log-in for a reason that the settings pass on to the browser.",
    Reason.BACKEND_UNAVAILABLE: "The backend did not answer in time or answered with an error of its own.",
    Reason.BACKEND_FAULT: "The backend answered in a form that can't be used. The same answer will come again.",
    Reason.CSRF_FAILED: "The request could not be proven to come from the application's own pages.",
    Reason.REQUEST_MALFORMED: "The request is not HTTP, or its body does not have the form that this route accepts.",
    Reason.HEAD_TOO_LARGE: "The request has more than 32 KiB before its body, more than 100 headers or 200 cookies.",
    Reason.BODY_ENCODED: "The request's body is compressed: it came with a Content-Encoding header.",
    Reason.HANDSHAKE_MALFORMED: "The WebSocket handshake breaks RFC 6455.",
    Reason.NOT_AN_UPGRADE: "A plain HTTP request came instead of a WebSocket handshake.",
    Reason.METHOD_NOT_ALLOWED: "The WebSocket handshake used another method than GET.",
    Reason.PATH_UNKNOWN: "No endpoint has exactly this path.",
    Reason.ENDPOINT_UNKNOWN: "The settings name no such endpoint.",
    Reason.ORIGIN_MISSING: "The request has no Origin, but the token was requested by a browser.",
    Reason.ORIGIN_REFUSED: "The Origin is not public.url and not in public.allowed_origins, or it came twice.",
    Reason.CHANNEL_FORBIDDEN: "The channel is outside the caller's scope.",
    Reason.CHANNELS_TOO_MANY: "The request names more channels than one request or one connection may have.",
    Reason.NOTHING_GRANTED: "The caller's roles grant none of the requested channels.",
    Reason.PUBLISHER_UNKNOWN: "The publisher key is missing or wrong.",
    Reason.OPERATOR_UNKNOWN: "The operator key is missing or wrong.",
    Reason.OPERATOR_FORBIDDEN: "The operator's key does not allow this call. Its settings say what it allows.",
    Reason.PUBLICATION_MALFORMED: "The publication is not strict UTF-8 JSON with the documented form.",
    Reason.PUBLICATION_TOO_LARGE: "The publication is longer than 64 KiB.",
    Reason.PATH_REFUSED: "The path of a proxied request could be read differently by the relay and the backend.",
    Reason.ROUTE_UNKNOWN: "No prefix of bff.proxy.routes covers the path, or it is an authentication route.",
    Reason.ROUTE_METHOD: "The route of bff.proxy.routes does not have this method.",
    Reason.HEADER_REFUSED: "A proxied request has a header that is never passed on, such as Upgrade.",
    Reason.DESTINATION_REFUSED: "A page tried to load a proxied answer as a script, a style, a worker or a frame.",
    Reason.BODY_TOO_LARGE: "The body of a proxied request is longer than bff.proxy.max_body_bytes.",
    Reason.BODY_STALLED: "The body of a proxied request did not go on for bff.proxy.idle_s.",
    Reason.CALLS_TOO_MANY: "The session has as many proxied requests open as bff.proxy.calls_per_session allows.",
    Reason.ANSWER_REFUSED: "The backend's answer can't be passed on safely. The record says why.",
    Reason.ANSWER_WITH_TOKEN: "The backend's answer held a token of the session. It was refused, or cut off.",
    Reason.BACKEND_FAILED: "The backend could not be reached, broke off, or its answer was not HTTP.",
    Reason.BACKEND_TIMEOUT: "The backend did not answer, or did not go on, within the time of the settings.",
    Reason.RATE_LIMITED: "The caller sent more requests than its limit allows.",
    Reason.ADDRESS_LIMIT: "Too many connections without a token are open from this address.",
    Reason.RELAY_FULL: "As many connections are open as limits.connections allows.",
    Reason.DRAINING: "The relay is shutting down and accepts no new connections.",
    Reason.STATE_UNAVAILABLE: "The state store did not answer, so single use could not be proven.",
    Reason.BROKER_UNAVAILABLE: "The broker did not answer, so it is unknown whether the message was published.",
    Reason.NODE_BLIND: "This node hears nothing from the engine, so it may not know of a revocation.",
    Reason.KEYS_UNAVAILABLE: "No key was available to sign or to check the token with.",
    Reason.AUDIT_UNAVAILABLE: "The audit log could not be written, so no token is issued.",
    Reason.CLIENT_CLOSED: "The client closed the connection.",
    Reason.LINK_LOST: "The connection broke without a close frame.",
    Reason.TOKEN_TIMEOUT: "No token came within five seconds of the handshake.",
    Reason.FRAME_MALFORMED: "A frame from the client is not a message of the protocol.",
    Reason.FRAME_BINARY: "The client sent a binary frame. The protocol has text frames only.",
    Reason.FRAME_TOO_LARGE: "A frame from the client is longer than 16 KiB.",
    Reason.FRAMES_TOO_FAST: "The client was told that its frames exceed the limit, and continued.",
    Reason.CONNECTION_EXPIRED: "The connection reached its maximum age.",
    Reason.KEY_REVOKED: "The token was signed with a key that was revoked.",
    Reason.CONNECTION_REPLACED: "A newer connection of the same session replaced this one.",
    Reason.CONNECTION_LIMIT: "The session has as many connections as it may have, and limits.over is refuse.",
    Reason.SLOW_CONSUMER: "The client was too slow for a stream channel, and its queue was full.",
    Reason.NO_PONG: "The client sent nothing for 40 seconds.",
    Reason.READER_STALLED: "The client's socket accepted no byte for 30 seconds.",
    Reason.SERVER_RESTARTING: "The relay shut down in order. The client was told when to reconnect.",
    Reason.SERVER_STOPPING: "The relay was stopped.",
    Reason.INTERNAL_ERROR: "The relay had an internal error. Its log has the details.",
}
"""What each reason means, for readers of the audit log."""

DECIDED_BY: dict[Reason, str] = {
    Reason.SESSION_MISSING: "session.cookie",
    Reason.SESSION_REPEATED: "session.cookie",
    Reason.SESSION_INVALID: "session.verifier",
    Reason.SESSION_EXPIRED: "session.leeway_s",
    Reason.SESSION_REVOKED: "session.max_s",
    Reason.SESSION_RENEWABLE: "bff.refresh",
    Reason.SESSION_RENEWED: "bff.refresh",
    Reason.REFRESH_REFUSED: "bff.refresh.path",
    Reason.REFRESH_SPENT: "bff.refresh.unconfirmed_s",
    Reason.CREDENTIALS_INVALID: "bff.login_path",
    Reason.LOGIN_REFUSED: "bff.login_codes",
    Reason.BACKEND_UNAVAILABLE: "bff.backend",
    Reason.BACKEND_FAULT: "bff.backend",
    Reason.CSRF_FAILED: "public.allowed_origins",
    Reason.ENDPOINT_UNKNOWN: "endpoints",
    Reason.ORIGIN_REFUSED: "public.allowed_origins",
    Reason.NOTHING_GRANTED: "grants",
    Reason.ROUTE_UNKNOWN: "bff.proxy.routes",
    Reason.ROUTE_METHOD: "bff.proxy.routes",
    Reason.BODY_TOO_LARGE: "bff.proxy.max_body_bytes",
    Reason.BODY_STALLED: "bff.proxy.idle_s",
    Reason.CALLS_TOO_MANY: "bff.proxy.calls_per_session",
    Reason.BACKEND_FAILED: "bff.backend",
    Reason.BACKEND_TIMEOUT: "bff.proxy.answer_s",
    Reason.RATE_LIMITED: "limits",
    Reason.STATE_UNAVAILABLE: "engine.state_path",
    Reason.BROKER_UNAVAILABLE: "engine.url",
    Reason.NODE_BLIND: "engine.blind_s",
    Reason.KEYS_UNAVAILABLE: "tokens.keys_dir",
    Reason.AUDIT_UNAVAILABLE: "audit.path",
}
"""The setting that decides about a reason, for the log line of a refusal that names no setting itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A check's answer "no".

    `reason` is recorded in the audit log. `detail` is for readers of the log and is never sent to a client. `setting`
    is the setting that decides, if it is a narrower one than `DECIDED_BY` has for the reason.
    """

    reason: Reason
    detail: str = ""
    setting: str = ""

    @classmethod
    def of(cls, error: "MalformedError | UnavailableError") -> "Refusal":
        """Return the refusal that `error` stands for: its reason, its text as the detail, and its setting."""
        return cls(reason=error.reason, detail=str(error), setting=error.setting)

    def __str__(self) -> str:
        return self.detail or EXPLANATIONS[self.reason]


class RelayError(Exception):
    """Base of all exceptions that this package raises on purpose. The text says what to do."""


class ConfigurationError(RelayError):
    """Settings, key files or arguments are wrong, and a person must correct them before the relay can start."""


class MalformedError(RelayError):
    """Input does not have the required form. `detail` is one sentence that may be shown to the sender."""

    def __init__(self, detail: str, *, reason: Reason = Reason.REQUEST_MALFORMED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.setting = ""


class UnavailableError(RelayError):
    """A part that must answer did not. `reason` says which. The caller must refuse and not allow.

    `setting` is the setting that names the part, see `Refusal`. `answered` is the HTTP status of an answer that came
    and can't be used, 0 if none came.
    """

    def __init__(self, reason: Reason, detail: str = "", *, setting: str = "", answered: int = 0) -> None:
        super().__init__(detail or EXPLANATIONS[reason])
        self.reason = reason
        self.setting = setting
        self.answered = answered
