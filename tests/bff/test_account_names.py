"""The form of a log-in name in which log-ins are counted."""

import pytest

from relay.bff.account_names import counted_name, name_hmac

SAME = {
    "letter case": "BOB@Example.com",
    "white space": " \tbob@example.com\u3000",
    "full width": "\uff42\uff4f\uff42\uff20example.com",
    "mathematical": "\U0001d41b\U0001d428\U0001d41b@example.com",
    "zero-width space": "b\u200bob@example.com",
    "zero-width joiners": "b\u200c\u200do\u2060b@example.com",
    "byte order mark": "\ufeffbob@example.com",
    "soft hyphen": "bob@exam\u00adple.com",
    "directional marks": "\u202ebob\u202c@example.com\u200e",
    "variation selectors": "b\ufe0fob\U000e0100@example.com",
    "grapheme joiner": "b\u034fob@example.com",
    "Hangul fillers": "b\u3164o\uffa0b\u115f@example.com",
    "tags": "bob\U000e0062@example.com",
}


@pytest.mark.parametrize("kind", SAME)
def test_spellings_of_one_name(kind: str) -> None:
    """They have one counted form, and one keyed hash."""
    assert counted_name(SAME[kind]) == "bob@example.com"
    assert name_hmac(b"key", SAME[kind]) == name_hmac(b"key", "bob@example.com")
    assert name_hmac(b"other", SAME[kind]) != name_hmac(b"key", "bob@example.com")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Stra\u00dfe", "STRASSE"),
        ("\u00e9", "e\u0301"),
        ("e\u200d\u0301", "\u00c9"),
        ("\u03c3", "\u03c2"),
        ("\ufb01n", "FIN"),
        ("\u212b", "\u00e5"),
    ],
)
def test_other_scripts(one: str, other: str) -> None:
    """Letters in their composed, decomposed, final and joined forms are the same."""
    assert counted_name(one) == counted_name(other)


@pytest.mark.parametrize(
    "other", ["bo b@example.com", "b0b@example.com", "bob@example.co", "b\u00f6b@example.com"]
)
def test_other_names_stay_others(other: str) -> None:
    """Letters that only look alike are other letters."""
    assert counted_name(other) != "bob@example.com"
