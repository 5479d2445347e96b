"""All targets by name, and the dictionary of words that get a fuzzer further than single bytes."""

from collections.abc import Mapping

from tests.fuzz import credentials, frames, requests
from tests.fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    target.name: target for part in (credentials, requests, frames) for target in part.TARGETS
}
WORDS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b".",
        b"=",
        b"%",
        b"\n",
        b"\r\n",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
    ),
    *(b"\\ud800", b"\\u0000", b"null", b"true", b"NaN", b"-0", b"1e999", b"9007199254740993", b"0.1", b'""'),
    *(
        b'"alg"',
        b'"kid"',
        b'"typ"',
        b'"type"',
        b'"channel"',
        b'"data"',
        b'"since"',
        b'"id"',
        b'"keys"',
        b'"exp"',
    ),
    *(
        b">",
        b"*",
        b"/",
        b"?",
        b"&",
        b";",
        b"token=",
        b"channels=",
        b"bearer.",
        b"relay.v1",
        b"..",
        b"%2e",
        b"::1",
    ),
)
