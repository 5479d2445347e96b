"""What a refused caller sees: one table that is complete, coarse and small enough for a close frame."""

import re

import pytest

from relay.core.closes import ANSWERS, CloseCode, answer_for, close_for
from relay.core.errors import Reason

MAX_CLOSE_TEXT_BYTES = 123  # RFC 6455 §5.5: a control frame carries 125 bytes, two of them the code


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_an_answer(reason: Reason) -> None:
    """An HTTP status, a close code, a public code and a sentence. Only an EventSource is stopped with a 204."""
    answer = answer_for(reason)
    assert 400 <= answer.status <= 599 or (reason, answer.status) == (Reason.SSE_RECONNECT, 204)
    assert re.fullmatch(r"[a-z_]+", answer.code)
    assert answer.message.endswith(".")


def test_no_answer_without_a_reason() -> None:
    """The table has no answer that can't be sent."""
    assert set(ANSWERS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_close_texts_fit_into_a_close_frame(reason: Reason) -> None:
    """A longer text would make the library raise instead of closing."""
    close = close_for(reason)
    assert 0 < len(close.text.encode()) <= MAX_CLOSE_TEXT_BYTES
    assert close.reason is reason


@pytest.mark.parametrize("reason", Reason)
def test_close_texts_reveal_no_more_than_the_answer(reason: Reason) -> None:
    """A close frame says the coarse code, or that the session was revoked; the exact reason stays in the log."""
    close = close_for(reason)
    assert close.text == answer_for(reason).code or reason is Reason.SESSION_REVOKED


@pytest.mark.parametrize("code", CloseCode)
def test_codes_are_in_their_ranges(code: CloseCode) -> None:
    """Codes are from RFC 6455, from IANA's 3000 range, or our own: below 4500 reconnect, from 4500 stop."""
    assert 1000 <= code <= 1013 or code in (3000, 3003, 3008) or 4000 <= code <= 4999


def test_bad_tokens_look_alike() -> None:
    """Expired, unknown key, wrong signature, replayed: the same answer, so that a refusal is no oracle."""
    alike = {
        ANSWERS[reason]
        for reason in Reason
        if reason.name.startswith("TOKEN_")
        and reason
        not in (
            Reason.TOKEN_REPEATED,  # about the request, before any token is looked at
            Reason.TOKEN_TRANSPORT,
            Reason.TOKEN_TIMEOUT,
            Reason.TOKEN_AUDIENCE,  # validly signed, for somewhere else: 403
            Reason.TOKEN_ORIGIN,
        )
    }
    assert len(alike) == 1
    assert alike.pop().status == 401


def test_revoked_session_stops_a_live_socket() -> None:
    """A handshake with a revoked session is 401 as for any other; an open socket ends with 4501, which says stop."""
    assert answer_for(Reason.SESSION_REVOKED) == answer_for(Reason.SESSION_INVALID)
    assert int(close_for(Reason.SESSION_REVOKED).code) == 4501


@pytest.mark.parametrize("reason", Reason)
def test_retryable_means_that_waiting_helps(reason: Reason) -> None:
    """Only what changes by itself is retryable; a close from 4500 on, which tells clients to stop, never is."""
    answer = answer_for(reason)
    if answer.retryable:
        assert answer.status in (401, 408, 429, 500, 503)
        assert answer.close < 4500
    if answer.status in (429, 503):
        assert answer.retryable
