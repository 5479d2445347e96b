"""HTTP answers: JSON, with one form for every error.

Every error is `{"code", "message", "retryable"}`. Status and code come from the table in `relay.core.closes`.
`relay.web.uvicorn_runner` adds the security headers, with no-store.
"""

from typing import Any

import msgspec
from starlette.responses import Response

from relay.core.closes import answer_for
from relay.core.errors import Refusal
from relay.limits.retry_after import jittered, retry_after


def json_answer(status: int, body: Any) -> Response:
    """Return an answer with `body` as JSON."""
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")


def error_answer(
    status: int, code: str, message: str, *, retryable: bool = False, retry_after_s: float | None = None
) -> Response:
    """Return an error in the common form. `retry_after_s` is rounded up to whole seconds (RFC 9110 §10.2.3).

    If many clients get the same error at once, their waits must differ: see `relay.limits.retry_after`.
    """
    response = json_answer(status, {"code": code, "message": message, "retryable": retryable})
    if retry_after_s is not None:
        response.headers["Retry-After"] = retry_after(retry_after_s)
    return response


def refusal_answer(
    refusal: Refusal, *, message: str | None = None, retry_after_s: float | None = None
) -> Response:
    """Return the coarse public answer to a refusal. `message` replaces the table's if it may be more exact."""
    answer = answer_for(refusal.reason)
    if retry_after_s is None and answer.status in (429, 503):
        retry_after_s = jittered()
    return error_answer(
        answer.status,
        answer.code,
        message or answer.message,
        retryable=answer.retryable,
        retry_after_s=retry_after_s,
    )
