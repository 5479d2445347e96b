"""Numbers of things in sentences for people."""


def counted(number: int, what: str, *, many: str = "") -> str:
    """Return "1 record" or "2,000 records": the number, and `what` it counts, whose plural is `many` or has an s."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"
