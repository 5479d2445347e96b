"""Auth.js's and NextAuth's encrypted sessions: what opens one, and what is refused before and after that."""

import base64
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import ConfigurationError, Reason, Refusal
from relay.sessions.authjs import MAX_CREDENTIAL_BYTES, AuthjsVerifier
from relay.sessions.base import NotMine, Session
from relay.sessions.claims import ClaimNames
from relay.sessions.session_ref import session_ref
from tests.support.authjs_sessions import (
    MINTED_AT,
    NAMES,
    OPTIONS,
    OTHER_SECRET,
    PAYLOAD,
    RECORDED,
    SECRET,
    VERIFIER,
    encrypted,
    recorded,
)
from tests.support.jws_forgery import b64
from tests.support.signed_sessions import REF_KEY

NOW = MINTED_AT + 10


async def verdict(text: str, verifier: AuthjsVerifier = VERIFIER, *, now: float = NOW) -> Reason | None:
    """Return why `text` is no session, or None; it must not be passed on to another verifier."""
    answer = await verifier.verify(text, now=now)
    assert not isinstance(answer, NotMine)
    return answer.reason if isinstance(answer, Refusal) else None


# --- what the real packages minted


@pytest.mark.parametrize("name", RECORDED["cookies"])
async def test_each_recorded_cookie_opens_with_its_secret_only(name: str) -> None:
    """Each cookie that the real packages set opens with its secret, whole or in parts, and with no other."""
    text = recorded(name)
    own = OTHER_SECRET if "other" in name else SECRET
    session = await AuthjsVerifier(replace(OPTIONS, secrets=(own,))).verify(text, now=NOW)
    assert isinstance(session, Session), session
    assert (session.subject, session.roles) == ("user-7", ("trader",))
    assert session.issued_at == pytest.approx(MINTED_AT, abs=10)
    assert session.expires_at == pytest.approx(MINTED_AT + 3600, abs=10)
    foreign = AuthjsVerifier(replace(OPTIONS, secrets=("x" * 32,)))
    assert await verdict(text, foreign) is Reason.SESSION_INVALID


@pytest.mark.parametrize("name", ["v5 https", "v4 https"])
async def test_a_session_id_of_the_applications_own(name: str) -> None:
    """What its jwt callback puts into sid is the session's id."""
    session = await VERIFIER.verify(recorded(name), now=NOW)
    assert isinstance(session, Session)
    assert session.own_id
    assert session.ref == session_ref(REF_KEY, session_id="session-1", subject="user-7")


@pytest.mark.parametrize("name", ["v5 http", "v4 http"])
async def test_without_a_session_id(name: str) -> None:
    """jti changes each time Auth.js mints the session again, so it is no session id: the reference is the user's."""
    session = await VERIFIER.verify(recorded(name), now=NOW)
    assert isinstance(session, Session)
    assert not session.own_id
    assert session.ref == session_ref(REF_KEY, session_id=None, subject="user-7")


async def test_cookies_of_the_old_and_the_new_secret_are_sessions() -> None:
    """With the new secret first and the old one behind it, cookies of both are sessions; then the old one goes."""
    both = AuthjsVerifier(replace(OPTIONS, secrets=(OTHER_SECRET, SECRET)))
    for name in ("v5 https", "v5 other secret", "v4 https", "v4 other secret"):
        assert await verdict(recorded(name), both) is None
    later = AuthjsVerifier(replace(OPTIONS, secrets=(OTHER_SECRET,)))
    for name in ("v5 https", "v4 https"):
        assert await verdict(recorded(name), later) is Reason.SESSION_INVALID


# --- keys


async def test_another_cookie_of_authjs_is_no_session() -> None:
    """Auth.js encrypts a sign-in's state and PKCE verifier with the same secret, and those are no sessions."""
    for salt in ("authjs.state", "__Secure-authjs.pkce.code_verifier", ""):
        assert await verdict(encrypted(salt=salt)) is Reason.SESSION_INVALID
        assert await verdict(encrypted(salt=salt, kid=None)) is Reason.SESSION_INVALID


async def test_cookies_of_another_name() -> None:
    """An application that calls its cookie something else has another salt."""
    named = AuthjsVerifier(replace(OPTIONS, cookies=("shop.session",)))
    assert await verdict(encrypted(salt="shop.session"), named) is None
    assert await verdict(encrypted(), named) is Reason.SESSION_INVALID


async def test_a_wrong_kid_opens_nothing() -> None:
    """It is a look-up among our own keys: a wrong one opens nothing, and without one all of them are tried."""
    assert await verdict(encrypted()) is None
    assert await verdict(encrypted(kid=None)) is None
    for kid in ("x", "", "../key", "A" * 86):
        assert await verdict(encrypted(kid=kid)) is Reason.SESSION_INVALID
    assert await verdict(rewritten(encrypted(), kid=7)) is Reason.SESSION_INVALID
    assert (
        await verdict(rewritten(encrypted(), kid=None)) is Reason.SESSION_INVALID
    )  # authenticated with the rest


def rewritten(text: str, **header: Any) -> str:
    """Put other members into a token's header, which the tag then no longer fits."""
    head, _, rest = text.partition(".")
    own = json.loads(base64.urlsafe_b64decode(head + "==")) | header
    return f"{b64(json.dumps({name: own[name] for name in own if own[name] is not None}).encode())}.{rest}"


@pytest.mark.parametrize("version", [4, 5])
async def test_a_cookie_with_one_changed_byte_does_not_open(version: int) -> None:
    """In the IV, the text or the tag: nothing opens it."""
    parts = encrypted(version=version).split(".")
    for index in (2, 3, 4):
        raw = bytearray(base64.urlsafe_b64decode(parts[index] + "=="))
        raw[len(raw) // 2] ^= 1
        changed = [*parts[:index], b64(bytes(raw)), *parts[index + 1 :]]
        assert await verdict(".".join(changed)) is Reason.SESSION_INVALID


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("index", "sizes"), [(1, (1, 32)), (2, (0, 8, 17)), (3, (0, 15)), (4, (0, 4, 15, 33))]
)
async def test_parts_of_another_size(version: int, index: int, sizes: tuple[int, ...]) -> None:
    """An encrypted key where none belongs, a cut tag, an IV that no such cipher has."""
    for size in sizes:
        parts = encrypted(version=version).split(".")
        parts[index] = b64(b"x" * size)
        assert await verdict(".".join(parts)) is Reason.SESSION_INVALID


# --- header


async def test_compression_is_refused_unopened() -> None:
    """A bomb: two megabytes in two kilobytes, made with the right key."""
    assert len(zlib.compress(b"x" * 2_000_000)) < 2100
    for version in (4, 5):
        bomb = encrypted(json.dumps(PAYLOAD | {"pad": "x" * 20_000}).encode(), version=version, zip="DEF")
        answer = await VERIFIER.verify(bomb, now=NOW)
        assert isinstance(answer, Refusal)
        assert "compressed" in str(answer)
        assert answer.reason is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    "header",
    [{"crit": ["exp"]}, {"jku": "https://evil.example"}, {"jwk": {}}, {"x5u": "a"}, {"p2c": 1}, {"": 1}],
)
async def test_members_that_no_session_has(header: dict[str, Any]) -> None:
    """Whatever they might mean, nothing is fetched and nothing opened."""
    for version in (4, 5):
        assert await verdict(rewritten(encrypted(version=version), **header)) is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    "header",
    [
        *[
            {"alg": "A256KW"},
            {"alg": "RSA-OAEP"},
            {"alg": "PBES2-HS256+A128KW"},
            {"alg": None},
            {"alg": ["dir"]},
        ],
        *[{"enc": "A128GCM"}, {"enc": "A256CBC-HS512 "}, {"enc": None}, {"enc": 7}],
    ],
    ids=str,
)
async def test_other_algorithms_are_not_mine(header: dict[str, Any]) -> None:
    """A JWE for somebody else's key may be somebody else's session."""
    assert isinstance(await VERIFIER.verify(rewritten(encrypted(), **header), now=NOW), NotMine)


async def test_the_other_encryption_of_the_same_key() -> None:
    """A header that says v4 for a v5 session, and the other way round, opens neither."""
    assert await verdict(rewritten(encrypted(), enc="A256GCM")) is Reason.SESSION_INVALID
    assert await verdict(rewritten(encrypted(version=4), enc="A256CBC-HS512")) is Reason.SESSION_INVALID


# --- claims and time


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        *[(0, None), (3599, None), (3659.9, None), (3660, Reason.SESSION_EXPIRED)],
        *[(86_400, Reason.SESSION_EXPIRED), (-60, None), (-61, Reason.SESSION_INVALID)],
    ],
)
async def test_an_expired_or_future_session_is_refused(skew: float, expected: Reason | None) -> None:
    """Its end counts, with a minute of leeway, and it can't come from the future."""
    assert await verdict(encrypted(), now=MINTED_AT + skew) is expected


@pytest.mark.parametrize(
    "changes",
    [{"exp": None}, {"exp": "soon"}, {"sub": ""}, {"sub": 7.5}, {"roles": [1]}, {"sid": True}, {"iat": "1"}],
    ids=str,
)
async def test_claims_of_another_form(changes: dict[str, Any]) -> None:
    """The application made it, and it is no session all the same."""
    for version in (4, 5):
        assert await verdict(encrypted(PAYLOAD | changes, version=version)) is Reason.SESSION_INVALID


@pytest.mark.parametrize("without", ["exp", "sub"])
async def test_a_session_without_subject_or_end_is_refused(without: str) -> None:
    """A session is somebody's, and ends."""
    payload = {name: value for name, value in PAYLOAD.items() if name != without}
    assert await verdict(encrypted(payload)) is Reason.SESSION_INVALID


@pytest.mark.parametrize("plain", [b"", b"[]", b"7", b"\xff", b'{"sub":"a","sub":"b"}', b"{}"])
async def test_what_is_no_claims(plain: bytes) -> None:
    """Made with the right key, and holding something else than one JSON object."""
    for version in (4, 5):
        assert await verdict(encrypted(plain, version=version)) is Reason.SESSION_INVALID


async def test_claims_in_an_object() -> None:
    """Applications that keep everything under `user` say so in the settings."""
    names = ClaimNames(
        subject="user.id", roles="user.roles", session="user.session", issued_at="signed_in_at"
    )
    payload = {
        "user": {"id": "user-9", "roles": ["guest"], "session": "s"},
        "signed_in_at": MINTED_AT - 500,
        "iat": MINTED_AT,
        "exp": MINTED_AT + 60,
    }
    session = await AuthjsVerifier(replace(OPTIONS, claims=names)).verify(encrypted(payload), now=NOW)
    assert isinstance(session, Session)
    assert (session.subject, session.roles, session.issued_at) == ("user-9", ("guest",), MINTED_AT - 500)


# --- size and form


async def test_a_cookie_above_19_680_bytes_is_refused_unopened() -> None:
    """Five chunks are the most that is decrypted; more is refused unopened, also when it is good."""
    room = encrypted(PAYLOAD | {"pad": "x" * 14_000})
    assert len(room) < MAX_CREDENTIAL_BYTES
    assert await verdict(room) is None
    assert await verdict(encrypted(PAYLOAD | {"pad": "x" * 15_000})) is Reason.SESSION_INVALID
    head, _, _ = encrypted().partition(".")
    assert await verdict(f"{head}..{'a' * 5_000_000}.a.a") is Reason.SESSION_INVALID


@given(st.text(max_size=300) | st.binary(max_size=90).map(lambda data: f"{b64(data)}..AAAA.AAAA.AAAA"))
@example("....")
@example("\ud800....")
@example(f"{b64(b'{' * 300)}....")
async def test_any_text_is_refused_without_an_error(text: str) -> None:
    """A cookie has whatever somebody put into it."""
    assert isinstance(await VERIFIER.verify(text, now=NOW), NotMine)


@given(st.lists(st.text("AQgw_-=+/ \u00e9.", max_size=9), min_size=4, max_size=4), st.sampled_from([4, 5]))
async def test_any_parts_behind_a_good_header(parts: list[str], version: int) -> None:
    """With a header of ours anything may follow, and nothing raises."""
    head, _, _ = encrypted(version=version).partition(".")
    assert isinstance(await VERIFIER.verify(".".join([head, *parts]), now=NOW), Refusal)


# --- settings


@pytest.mark.parametrize("secrets", [(), ("",), ("s" * 31,), (SECRET, "short"), (SECRET,) * 5])
def test_secrets_that_will_not_do(secrets: tuple[str, ...]) -> None:
    """None, too short, or more than a rotation needs."""
    with pytest.raises(ConfigurationError) as caught:
        AuthjsVerifier(replace(OPTIONS, secrets=secrets))
    assert SECRET not in str(caught.value)
    assert str(caught.value).startswith("session.authjs.secrets")


def test_both_names_of_each_version_are_known() -> None:
    """What the tests above call by name is what the packages set."""
    for header in RECORDED["cookies"].values():
        names = [pair.partition("=")[0] for pair in header.split("; ")]
        sessions = [name for name in names if "session-token" in name]
        assert sessions
        assert all(name.removesuffix(".0").removesuffix(".1") in NAMES for name in sessions)
