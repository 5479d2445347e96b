"""A session's own token is found in an answer, however it is written and wherever the pieces end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.bff.proxy.token_search import TokenSearch

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl/+=="


def search() -> TokenSearch:
    """Return a search for two tokens."""
    return TokenSearch([TOKEN, "another-token-0123456789", "short"])


@pytest.mark.parametrize(
    "document",
    [
        json.dumps({"token": TOKEN}),
        json.dumps({TOKEN: 1}),
        json.dumps({"a": [f"Bearer {TOKEN}!"]}),
        json.dumps({"a": TOKEN}).replace("/", "\\/"),
        json.dumps({"a": 1}).replace("1", '"' + "".join(f"\\u{ord(one):04x}" for one in TOKEN) + '"'),
        json.dumps({"a": 1}).replace("1", '"' + "".join(f"\\u{ord(one):04X}" for one in TOKEN) + '"'),
        f'{{"a":"{TOKEN}","a":1}}',
        f'{{"a":"{TOKEN}"',
    ],
)
def test_row_29_a_token_in_a_document_is_found(document: str) -> None:
    """As a name, a value, a part of one, escaped, as the first of two members of one name, in a broken document."""
    assert search().is_in_json(document.encode())


@pytest.mark.parametrize(
    "document", ["{}", f'["{TOKEN[:-1]}"]', '["short"]', f'["{TOKEN[:20]}","{TOKEN[20:]}"]']
)
def test_a_document_without_a_token_passes(document: str) -> None:
    """Parts of a token are not the token, and a cookie of a few characters is none."""
    assert not search().is_in_json(document.encode())


@given(st.binary(max_size=30), st.binary(max_size=30), st.lists(st.integers(1, 40), max_size=30))
def test_row_29_a_token_is_found_wherever_the_pieces_end(
    before: bytes, after: bytes, sizes: list[int]
) -> None:
    """No byte of it goes out."""
    looking, data, out, found = search(), before + TOKEN.encode() + after, b"", False
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        passed = looking.feed(piece)
        if passed is None:
            found = True
            break
        out += passed
    assert found
    assert (before + TOKEN.encode()).startswith(out)
    assert len(out) <= len(before)


@given(st.lists(st.text(alphabet="eyJhbGci another-token.", max_size=12)))
def test_a_stream_without_a_token_goes_out_whole(pieces: list[str]) -> None:
    """Beginnings of tokens are held back and follow; nothing is lost or moved."""
    looking = search()
    passed = [looking.feed(piece.encode()) for piece in pieces]
    out = b"".join(piece for piece in passed if piece is not None) + looking.rest()
    assert out == "".join(pieces).encode()


def test_an_event_is_not_held_back() -> None:
    """An event ends with a line break, which no token has, so it goes out at once."""
    assert search().feed(b"data: eyJhbGciOiJI\n\n") == b"data: eyJhbGciOiJI\n\n"
    assert search().feed(b"data: eyJhbGciOiJI") == b"data: "
