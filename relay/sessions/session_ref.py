"""Session references: keyed hashes that stand in tokens and logs in place of a session's id.

A reader of a log can follow one session by its reference and can't take the session over. The reference is the same on
every node with the same `session.ref_key`.
"""

import hmac


def session_ref(ref_key: bytes, *, session_id: str | None, subject: str) -> str:
    """Return the reference of a session, 128 bits as 32 hex digits.

    Without a session id it is made from the subject, and names all sessions of that user. Each kind has a prefix of its
    own, so that a user whose name equals a session's id does not share its reference.
    """
    text = f"sid:{session_id}" if session_id else f"sub:{subject}"
    return hmac.digest(ref_key, text.encode(), "sha256").hex()[:32]  # half of the time of hmac.new
