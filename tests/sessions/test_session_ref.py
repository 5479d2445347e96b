"""Session references: stable, keyed, and of two kinds that can't meet."""

import re

from hypothesis import given
from hypothesis import strategies as st

from relay.sessions.session_ref import session_ref

KEY = b"k" * 32
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(texts, texts)
def test_a_session_reference_has_32_hex_digits(session_id: str, subject: str) -> None:
    """32 hex digits, the same each time, with nothing of the id in it."""
    ref = session_ref(KEY, session_id=session_id, subject=subject)
    assert re.fullmatch(r"[0-9a-f]{32}", ref)
    assert ref == session_ref(KEY, session_id=session_id, subject="somebody else")
    assert ref != session_ref(b"l" * 32, session_id=session_id, subject=subject)


@given(texts, texts)
def test_the_two_kinds_do_not_meet(one: str, other: str) -> None:
    """A user who is named like a session's id does not share its reference."""
    assert session_ref(KEY, session_id=one, subject=other) != session_ref(KEY, session_id=None, subject=one)
    assert session_ref(KEY, session_id=None, subject=one) == session_ref(KEY, session_id="", subject=one)
