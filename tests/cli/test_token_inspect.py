"""`relay token inspect`: a token explained, with every reason, and without harm to the terminal that shows it."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.core.tokens import Claims, SigningKey, mint
from relay.keys.files import create_signing_key
from tests.support.command_line import RelayCommand
from tests.support.jws_forgery import forge

ISSUER = "https://app.example.com"
AUDIENCE = "wss://stream.example.com/ws/prices"


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """A key that signs."""
    return create_signing_key(tmp_path / "keys")


def fresh(key: SigningKey, *, age: int = 0, subject: str = "user-7") -> str:
    now = int(time.time()) - age
    return mint(
        Claims(
            issuer=ISSUER,
            audience=AUDIENCE,
            subject=subject,
            session_ref="0123456789abcdef",
            channels=("prices.>",),
            origin=ISSUER,
            jti="AAAAAAAAAAAAAAAAAAAAAA",
            issued_at=now,
            expires_at=now + 30,
            session_expires_at=now + 7200,
        ),
        key,
    )


def test_every_member_of_a_token_is_explained(key: SigningKey, relay: RelayCommand) -> None:
    """Every member is explained, times are also relative, and what else must be checked is said."""
    done = relay("token", "inspect", fresh(key))
    assert done.code == 0
    for name in (
        "typ",
        "alg",
        "kid",
        "iss",
        "aud",
        "sub",
        "iat",
        "exp",
        "jti",
        "channels",
        "sid",
        "session_exp",
        "ver",
    ):
        assert f"\n{name}\t" in done.out
    assert "expires in " in done.out
    assert "the log-in session ends in " in done.out
    assert "not a claim" not in done.out
    assert "Nothing in it is a reason to refuse it now." in done.out
    assert done.out.count("Not checked:") == 1
    assert "relay token verify" in done.out


def test_every_reason_is_named(key: SigningKey, relay: RelayCommand) -> None:
    """All at once, in the words of the audit log."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u", "jti": "j", "scope": "subscribe", "sid": "s"}
    times = {"iat": now - 500, "nbf": now + 500, "exp": now - 90}
    payload = {**claims, **times, "channels": ["prices.>"], "origin": "", "ver": 1}
    header = {"typ": "JWT", "alg": "EdDSA", "kid": key.kid, "jku": "https://evil.example"}
    done = relay("token", "inspect", forge(header, payload, key.key))
    assert done.code == 1
    assert "It would be refused:" in done.out
    for reason in ("header", "lifetime", "not_yet_valid", "expired"):
        assert f"- token_{reason}: " in done.out
    assert re.search(r"The token's exp has passed\. It expired 9\d s ago\.", done.out)


def test_a_kid_that_is_none_is_a_reason_also_without_keys(key: SigningKey, relay: RelayCommand) -> None:
    """No key could ever be found for it."""
    done = relay("token", "inspect", forge({"typ": "scoped+jwt", "alg": "EdDSA", "kid": 1}, {}, key.key))
    assert "token_key_unknown" in done.out


def test_a_dash_reads_the_token_from_standard_input(key: SigningKey, relay: RelayCommand) -> None:
    """`-` reads the token from there, with its line end, so that it shows in no process list."""
    for end in (b"", b"\n", b"\r\n"):
        assert relay("token", "inspect", "-", stdin=fresh(key).encode() + end).code == 0


def test_the_json_has_the_same_findings_as_the_text(key: SigningKey, relay: RelayCommand) -> None:
    """One object, with the same answers."""
    good = json.loads(relay("token", "inspect", fresh(key), "--json").out)
    assert (good["acceptable"], good["refusals"], len(good["unchecked"])) == (True, [], 1)
    assert good["header"]["kid"] == key.kid
    assert good["claims"]["aud"] == AUDIENCE
    done = relay("token", "inspect", fresh(key, age=90), "--json")
    found = json.loads(done.out)
    assert (done.code, found["acceptable"]) == (1, False)
    assert [refusal["reason"] for refusal in found["refusals"]] == ["token_expired"]


HOSTILE = "\x1b[2J\x1b[1;32mIt would be accepted\r\n\u202e\u2028[red]x[/red]\x9b31m"


def hostile_token(key: Ed25519PrivateKey) -> str:
    payload = {
        "iss": HOSTILE,
        "aud": HOSTILE,
        "sub": HOSTILE,
        "origin": HOSTILE,
        HOSTILE: HOSTILE,
        "exp": 10**15,
    }
    return forge({"typ": HOSTILE, "alg": "EdDSA", "kid": HOSTILE, HOSTILE: 1}, payload, key)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_token_does_not_steer_the_terminal(
    key: SigningKey, relay: RelayCommand, options: tuple[str, ...]
) -> None:
    """Nothing of a token comes out raw: no escape sequence, no line break, no change of direction."""
    done = relay("token", "inspect", hostile_token(key.key), *options)
    assert done.code == 1
    assert all(line.replace("\t", "").isprintable() for line in done.out.splitlines())
    assert not any(line.startswith("It would be accepted") for line in done.out.splitlines())


def on_terminal(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run the command in a process of its own whose standard output is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from relay.cli import main; main()", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.STDOUT) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        shown = b""
        try:
            while data := os.read(ours, 65_536):
                shown += data
        except OSError:  # how Linux says that the other end of a terminal was closed
            pass
        os.close(ours)
        return process.wait(), shown.decode()


def test_a_terminal_gets_a_table_and_no_markup_of_a_claim(key: SigningKey) -> None:
    """A table, with colours, in which a claim is no markup and no escape sequence."""
    code, shown = on_terminal("token", "inspect", "-", stdin=hostile_token(key.key).encode())
    assert code == 1
    assert "meaning" in shown
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    code, shown = on_terminal(
        "token", "inspect", "-", stdin=fresh(key, subject="[red]x[/red]").encode() + b"\n"
    )
    assert code == 0
    assert '"[red]x[/red]"' in shown
    assert "Nothing in it is a reason" in shown


@pytest.mark.parametrize(
    "text",
    [
        *["", "garbage", "a.b.c", "e30.e30.AAAA", ".", "..", "\ud800", "é.é.é", "\x1b[2J", "A" * 5_000],
        forge(b'{"a":' * 300 + b"1" + b"}" * 300, {}, b"x" * 32),
        forge({}, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", b"x" * 32),
        forge({}, {"exp": 2**52, "iat": -1, "nbf": 10**30, "session_exp": 10**12}, b"x" * 32),
        forge(
            {"alg": ["x"], "kid": {}, "typ": 1},
            {"iss": 1, "aud": [], "channels": "x", "exp": "soon"},
            b"x" * 32,
        ),
    ],
    ids=lambda text: ascii(text[:20]),
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_text_that_is_no_token_is_refused_with_a_reason(
    text: str, options: tuple[str, ...], relay: RelayCommand
) -> None:
    """Refused, with a reason."""
    done = relay("token", "inspect", *options, "--", text)
    assert done.code == 1
    assert "token_" in done.out


@pytest.mark.parametrize("stdin", [b"", b"\n", b"\xff\xfe", b"\x00" * 100, b"A" * 10_000_000])
def test_garbage_on_standard_input(stdin: bytes, relay: RelayCommand) -> None:
    """The same, for bytes that are no text, and for more than anybody would call a token."""
    assert relay("token", "inspect", "-", stdin=stdin).code == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["typ", "alg", "kid", "x"]), st.integers() | st.text(), max_size=4),
    st.dictionaries(
        st.sampled_from(["iss", "aud", "origin", "scope", "exp", "iat", "x"]),
        st.integers() | st.text(),
        max_size=6,
    ),
)
def test_inspect_never_fails_on_any_claims(
    relay: RelayCommand, header: dict[str, Any], payload: dict[str, Any]
) -> None:
    """No combination of members makes it fail."""
    assert relay("token", "inspect", forge(header, payload, b"x" * 32)).code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("inspect",),
        ("inspect", "a", "b"),
        ("inspect", "a", "--nonsense"),
        ("inspect", "a", "--keys-dir", "keys"),
    ],
)
def test_wrong_arguments_are_a_usage_error(arguments: tuple[str, ...], relay: RelayCommand) -> None:
    """A missing or unknown argument is a usage error."""
    assert relay("token", *arguments).code == 2
