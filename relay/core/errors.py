"""Why something was refused, and the exceptions of this package.

A refusal is a value, not an exception: whoever checks something returns a `Refusal` with one `Reason`, and
the audit log, the HTTP answer and the close code are all made from that one value (`relay.core.closes` maps
it). Exceptions are for what the caller can't go on with:

    RelayError
    ├── ConfigurationError    settings, key files or arguments that a person must mend
    ├── MalformedError        input that is not of its form; `.detail` is one sentence for its sender
    └── UnavailableError      a part that must answer did not (state store, audit log, session backend)

Source for the shape: the reasons' names follow RFC 6750 §3.1 and RFC 9068 §4 where those have a word.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Every reason that appears as `event.reason` in the audit log. A closed set: `explain` has a sentence for each."""

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
    # the session behind a request
    SESSION_MISSING = "session_missing"
    SESSION_REPEATED = "session_repeated"
    SESSION_INVALID = "session_invalid"
    SESSION_EXPIRED = "session_expired"
    SESSION_REVOKED = "session_revoked"
    CREDENTIALS_INVALID = "credentials_invalid"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    # the request
    CSRF_FAILED = "csrf_failed"
    REQUEST_MALFORMED = "request_malformed"
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
    # load and state
    RATE_LIMITED = "rate_limited"
    ADDRESS_LIMIT = "address_limit"
    RELAY_FULL = "relay_full"
    DRAINING = "draining"
    STATE_UNAVAILABLE = "state_unavailable"
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
    Reason.TOKEN_TRANSPORT: "The token came in a way that tokens.transports switches off.",
    Reason.TOKEN_MALFORMED: "The token is not three base64url parts that hold strict JSON.",
    Reason.TOKEN_TOO_LARGE: "The token is longer than 4096 bytes.",
    Reason.TOKEN_HEADER: "The token's header has other members than typ, alg and kid, or another value in them.",
    Reason.TOKEN_KEY_UNKNOWN: "No key with the token's kid is known.",
    Reason.TOKEN_SIGNATURE: "The token's signature is wrong.",
    Reason.TOKEN_CLAIMS: "A claim of the token is missing, empty or of the wrong type.",
    Reason.TOKEN_EXPIRED: "The token's exp has passed.",
    Reason.TOKEN_NOT_YET_VALID: "The token's nbf or iat lies in the future.",
    Reason.TOKEN_LIFETIME: "The token claims a longer life than tokens may have.",
    Reason.TOKEN_ISSUER: "The token was issued by somebody else.",
    Reason.TOKEN_AUDIENCE: "The token is for another endpoint.",
    Reason.TOKEN_ORIGIN: "The token was asked for from another browser origin than the one that connects.",
    Reason.TOKEN_SCOPE: "The token's scope is not the one this service accepts.",
    Reason.TOKEN_SUBJECT: "The token that came to refresh a connection is another user's.",
    Reason.TOKEN_REPLAYED: "The token was used before.",
    Reason.SESSION_MISSING: "Neither a session cookie nor a Bearer token came with the request.",
    Reason.SESSION_REPEATED: "The session cookie came twice, which happens when another site plants one.",
    Reason.SESSION_INVALID: "The session's token has a wrong signature, form or purpose.",
    Reason.SESSION_EXPIRED: "The session's token has expired.",
    Reason.SESSION_REVOKED: "The session was logged out or revoked.",
    Reason.CREDENTIALS_INVALID: "The backend refused the name or the password.",
    Reason.BACKEND_UNAVAILABLE: "The backend did not answer in time or answered with an error of its own.",
    Reason.CSRF_FAILED: "The request could not be proven to come from the application's own pages.",
    Reason.REQUEST_MALFORMED: "The request's body is not what this route takes.",
    Reason.HANDSHAKE_MALFORMED: "The WebSocket handshake breaks RFC 6455.",
    Reason.NOT_AN_UPGRADE: "A plain HTTP request came where a WebSocket handshake belongs.",
    Reason.METHOD_NOT_ALLOWED: "The WebSocket handshake used another method than GET.",
    Reason.PATH_UNKNOWN: "No endpoint has exactly this path.",
    Reason.ENDPOINT_UNKNOWN: "The settings name no such endpoint.",
    Reason.ORIGIN_MISSING: "No Origin came, and the token was asked for by a browser.",
    Reason.ORIGIN_REFUSED: "The Origin is not in public.allowed_origins, or came twice.",
    Reason.CHANNEL_FORBIDDEN: "The channel lies outside the caller's scope.",
    Reason.CHANNELS_TOO_MANY: "More channels were named than one request, or one connection, may have.",
    Reason.NOTHING_GRANTED: "The caller's roles grant nothing of what was asked for.",
    Reason.PUBLISHER_UNKNOWN: "The publisher key is missing or wrong.",
    Reason.OPERATOR_UNKNOWN: "The operator key is missing or wrong.",
    Reason.OPERATOR_FORBIDDEN: "The operator's key does not open this; its settings say what it may.",
    Reason.PUBLICATION_MALFORMED: "The publication is not strict UTF-8 JSON of the documented form.",
    Reason.PUBLICATION_TOO_LARGE: "The publication is longer than 64 KiB.",
    Reason.RATE_LIMITED: "The caller asked more often than its limit allows.",
    Reason.ADDRESS_LIMIT: "Too many connections without a token are open from this address.",
    Reason.RELAY_FULL: "As many connections are open as limits.connections allows.",
    Reason.DRAINING: "The relay is shutting down and takes no new connections.",
    Reason.STATE_UNAVAILABLE: "The state store did not answer, so single use could not be proven.",
    Reason.KEYS_UNAVAILABLE: "No key to sign with, or none to check the token with, could be had now.",
    Reason.AUDIT_UNAVAILABLE: "The audit log could not be written, so no token is issued.",
    Reason.CLIENT_CLOSED: "The client closed the connection.",
    Reason.LINK_LOST: "The connection broke without a close frame.",
    Reason.TOKEN_TIMEOUT: "No token came within five seconds of the handshake.",
    Reason.FRAME_MALFORMED: "A frame from the client is not a message of the protocol.",
    Reason.FRAME_BINARY: "A binary frame came; the protocol has text frames only.",
    Reason.FRAME_TOO_LARGE: "A frame from the client is longer than 16 KiB.",
    Reason.FRAMES_TOO_FAST: "The client went on sending frames above its rate after it was told so.",
    Reason.CONNECTION_EXPIRED: "The connection reached the end of its allowed age.",
    Reason.KEY_REVOKED: "The key was revoked with which the token was signed.",
    Reason.CONNECTION_REPLACED: "A newer connection of the same session took this one's place.",
    Reason.CONNECTION_LIMIT: "The session has as many connections as it may, and limits.over says refuse.",
    Reason.SLOW_CONSUMER: "The client was too slow for a stream channel and its queue was full.",
    Reason.NO_PONG: "Nothing was heard from the client for 40 seconds.",
    Reason.READER_STALLED: "The client's socket took no byte for 30 seconds.",
    Reason.SERVER_RESTARTING: "The relay shuts down in order; the client was told when to come back.",
    Reason.SERVER_STOPPING: "The relay was stopped.",
    Reason.INTERNAL_ERROR: "The relay met an error of its own; its log has the details.",
}
"""One sentence for each reason, for the audit log's readers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A check's answer "no": `reason` for the audit log, `detail` for the log's reader (never sent to a client)."""

    reason: Reason
    detail: str = ""

    @classmethod
    def of(cls, error: "MalformedError | UnavailableError") -> "Refusal":
        """Return the refusal that `error` stands for: its reason, and its text as the detail."""
        return cls(reason=error.reason, detail=str(error))

    def __str__(self) -> str:
        return self.detail or EXPLANATIONS[self.reason]


class RelayError(Exception):
    """Base of every exception that this package raises on purpose; its text is one sentence for a person."""


class ConfigurationError(RelayError):
    """Settings, key files or arguments that a person must mend before the relay can start."""


class MalformedError(RelayError):
    """Input that is not of its form. `detail` is one sentence that may be shown to the sender."""

    def __init__(self, detail: str, *, reason: Reason = Reason.REQUEST_MALFORMED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason


class UnavailableError(RelayError):
    """A part that has to answer did not; `reason` says which. The caller fails closed."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail or EXPLANATIONS[reason])
        self.reason = reason
