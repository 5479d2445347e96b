"""Session references: what tokens and logs carry instead of a session's id.

A keyed hash, so that a log's reader can follow one session and can't take it over; the same on every node that
has the same `session.ref_key`.
"""

import hashlib
import hmac


def session_ref(ref_key: bytes, *, session_id: str | None, subject: str) -> str:
    """Return the reference of a session, 128 bits as 32 hex digits.

    Without a session id it is made from the subject, and then stands for all sessions of that user. The two
    kinds have a prefix each, so that a user named like a session's id can't collide with it.
    """
    text = f"sid:{session_id}" if session_id else f"sub:{subject}"
    return hmac.new(ref_key, text.encode(), hashlib.sha256).hexdigest()[:32]
