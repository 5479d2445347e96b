"""Texts in the engine. They are UTF-8, and a text may have half of a surrogate pair, which Python's UTF-8 refuses.

JSON can hold such a text, and so can a claim of somebody's token. It must not end a task that others wait for, so it is
stored as it is, in the three bytes that UTF-8 would have for it.
"""


def to_bytes(text: str) -> bytes:
    """Return any text as bytes."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Return the text of `to_bytes`."""
    return data.decode("utf-8", "surrogatepass")
