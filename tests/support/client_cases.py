"""What both clients, the Python one and the browser's, must make of what comes from outside: one table for each kind.

The tests of both clients read these tables, so that the clients can't come to differ.
"""

import json
from dataclasses import dataclass

MAX_WAIT_S = 300.0
"""Longest wait that a client accepts from a server, in seconds."""

MAX_JITTER_S = 0.5
"""A client adds at most its first back-off to a wait that a server named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalCase:
    """An HTTP answer to a token request, a handshake or a publication, and whether it ends the client's attempts."""

    name: str
    status: int
    body: bytes
    is_final: bool
    content_type: str = "application/json"


def relay_error(code: str, *, retryable: bool) -> bytes:
    """Return the body of a relay's own error."""
    return json.dumps({"code": code, "message": "No.", "retryable": retryable}).encode()


_HTML = b"<!doctype html><title>Default backend</title><h1>Not here</h1>"

REFUSALS = (
    *(
        RefusalCase(
            name=f"a proxy's {status}", status=status, body=_HTML, is_final=False, content_type="text/html"
        )
        for status in (200, 400, 403, 404, 413, 421, 425, 426, 429, 500, 502, 503)
    ),
    RefusalCase(name="an empty 404", status=404, body=b"", is_final=False),
    RefusalCase(
        name="another service's error", status=403, body=b'{"code":"x","message":"y"}', is_final=False
    ),
    RefusalCase(name="another service's error list", status=404, body=b'{"errors":[]}', is_final=False),
    RefusalCase(name="a JSON list", status=403, body=b"[]", is_final=False),
    RefusalCase(
        name="a relay's 403", status=403, body=relay_error("forbidden", retryable=False), is_final=True
    ),
    RefusalCase(
        name="a relay's 404", status=404, body=relay_error("not_found", retryable=False), is_final=True
    ),
    RefusalCase(
        name="a relay's 400", status=400, body=relay_error("invalid_request", retryable=False), is_final=True
    ),
    RefusalCase(
        name="a relay's 408 that is retryable",
        status=408,
        body=relay_error("token_timeout", retryable=True),
        is_final=False,
    ),
    RefusalCase(
        name="a relay's 503", status=503, body=relay_error("unavailable", retryable=True), is_final=False
    ),
    RefusalCase(
        name="a relay's 429", status=429, body=relay_error("rate_limited", retryable=True), is_final=False
    ),
    RefusalCase(
        name="a 500 that says that it is final",
        status=500,
        body=relay_error("internal_error", retryable=False),
        is_final=True,
    ),
)
"""401 is not here: a relay's 401 at the stream asks for another token, five times at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitCase:
    """A Retry-After header, and the wait in seconds without jitter; None: the client's own back-off."""

    header: str
    wait_s: float | None


RETRY_AFTER = (
    WaitCase(header="0", wait_s=0.0),
    WaitCase(header="30", wait_s=30.0),
    WaitCase(header="300", wait_s=300.0),
    WaitCase(header="86400", wait_s=MAX_WAIT_S),
    WaitCase(header="3000000", wait_s=MAX_WAIT_S),
    WaitCase(header="9" * 400, wait_s=MAX_WAIT_S),
    WaitCase(header="1e400", wait_s=MAX_WAIT_S),
    WaitCase(header="-5", wait_s=0.0),
    WaitCase(header="soon", wait_s=None),
    WaitCase(header="Fri, 31 Dec 2027 23:59:59 GMT", wait_s=None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MillisecondsCase:
    """A number of milliseconds in a frame (`delay_ms`, `retry_after_ms`, `expires_in_ms`), and it in seconds."""

    ms: int
    wait_s: float


MILLISECONDS = (
    MillisecondsCase(ms=0, wait_s=0.0),
    MillisecondsCase(ms=1500, wait_s=1.5),
    MillisecondsCase(ms=300_000, wait_s=300.0),
    MillisecondsCase(ms=86_400_000, wait_s=MAX_WAIT_S),
    MillisecondsCase(ms=1 << 31, wait_s=MAX_WAIT_S),
    MillisecondsCase(ms=1 << 53, wait_s=MAX_WAIT_S),
    MillisecondsCase(ms=-1, wait_s=0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRequest:
    """How the relay refuses a request of an open connection that is to be sent again."""

    code: str
    has_id: bool

    def frame(self, id: int, retry_after_ms: object) -> dict[str, object]:
        """Return the refusal of the frame with this id."""
        named = {"id": id} if self.has_id else {}
        answer = {"type": "error", "code": self.code, "message": "", "retryable": True}
        return answer | named | {"retry_after_ms": retry_after_ms}


REFUSED_REQUESTS = (
    RefusedRequest(code="rate_limited", has_id=False),  # the relay did not look at the frame
    RefusedRequest(code="unavailable", has_id=True),
)

MIN_REPEAT_S = 0.25
"""Shortest wait before such a request is sent again."""

BROKEN_FRAMES = (
    "",
    "not json",
    "null",
    "true",
    "1",
    '"text"',
    "[]",
    '[{"type":"heartbeat","ts":1}]',
    "{}",
    '{"type":null}',
    '{"type":5}',
    '{"type":"subscribed","channels":1,"rejected":[]}',
    '{"type":"unsubscribed","channels":1}',
)
"""Frames that are none of the protocol. A client tells of each (`malformed_frame`), and goes on."""

FINAL_CLOSES = (1003, 1008, 1009, 3003, 4500, 4501, 4503, 4504, 4999)
"""Close codes after which a client stops: bugs, refusals that stay, and everything from 4500 on."""

RETRIED_CLOSES = (1000, 1001, 1006, 1011, 1012, 1013, 3000, 3008, 3999, 4001, 4008, 4012, 4029, 4499)
"""Close codes after which it connects again: restarts, lost links, refused tokens, and unknown codes below 4500."""

COMPRESSION_ASKED: list[tuple[bool | None, list[int], bool]] = [
    (None, [], False),
    (None, [0], False),
    (None, [100], True),
    (None, [0, 100], True),
    (True, [], True),
    (True, [0], True),
    (False, [100], False),
]
"""A client's option `compress`, the intervals of its channels in ms, and whether it asks for compression."""
