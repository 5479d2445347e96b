"""Claims as backends really make them: null, numbers, milliseconds, clocks that differ. Over real sockets."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey

from tests.support.jws_forgery import claims_of
from tests.support.logs import lines_with
from tests.support.relay_process import SECRET, Relay, make_relay, running, with_session
from tests.support.shared_relay import relay

__all__ = ["relay"]


@dataclass(frozen=True)
class At:
    """A time so many seconds from now, times `scale`. It is made when its token is, and its text is always the same."""

    seconds: float = 0
    scale: int = 1

    def value(self) -> float:
        return (int(time.time()) + self.seconds) * self.scale


MS = At(scale=1000)
GONE = "(left out)"
"""Stands for a claim that is left out."""


def claims(**changes: Any) -> dict[str, Any]:
    """Return a session's claims with these changes."""
    usual = {
        "sub": "u1",
        "roles": ["trader"],
        "sid": "s-1",
        "token_use": "access",
        "iat": At(),
        "exp": At(600),
    }
    return {
        name: value.value() if isinstance(value, At) else value
        for name, value in (usual | changes).items()
        if value != GONE
    }


def by_pyjwt(payload: dict[str, Any]) -> str:
    """Return the token as PyJWT makes it. Its own check of types is only for encoding, so the JSON is signed."""
    return jwt.PyJWS().encode(json.dumps(payload).encode(), SECRET, "HS256")


def by_joserfc(payload: dict[str, Any]) -> str:
    """Return the token as joserfc makes it."""
    return joserfc_jwt.encode({"alg": "HS256", "typ": "JWT"}, payload, OctKey.import_key(SECRET))


MAKERS = {"PyJWT": by_pyjwt, "joserfc": by_joserfc}

ACCEPTED: list[dict[str, Any]] = [
    {"sid": None},
    {"sid": GONE},
    {"iat": None},
    {"iat": GONE},
    {"nbf": None},
    {"nbf": GONE},
    {"sid": None, "iat": None, "nbf": None},
    {"aud": None, "iss": None, "jti": None},
    {"sid": 12345},
    {"sid": 0},
    {"sid": 2**63},
    {"sid": 1e6},
    {"sub": 42},
    {"sub": 42.0},
    {"sub": 2**53 + 1},
    {"sub": 7, "sid": 8},
    {"sub": 7, "sid": None},
    {"sub": "7", "sid": "8"},
    {"iat": At(0.5)},
    {"iat": At(-5.25), "exp": At(300.75)},
    {"nbf": At(-1.5)},
    {"roles": "trader"},
    {"roles": ["guest", "trader"]},
    {"roles": ["trader"], "exp": At(60)},
    # clocks that differ: session.leeway_s is 60
    {"iat": At(3), "exp": At(603)},
    {"nbf": At(3)},
    {"iat": At(40), "nbf": At(40)},
    {"iat": At(-600), "exp": At(-20)},
    {"exp": At(-3), "iat": At(-603)},
]
NOTHING_GRANTED: list[dict[str, Any]] = [{"roles": None}, {"roles": GONE}, {"roles": []}]
REFUSED: dict[str, list[dict[str, Any]]] = {
    "milliseconds?": [
        {"exp": At(600, 1000)},
        {"iat": MS},
        {"nbf": MS},
        {"exp": At(600, 1_000_000)},
        {"exp": At(600.5, 1000)},
        {"iat": MS, "exp": At(600, 1000)},
        {"exp": 10**20},
    ],
    "no exp": [{"exp": None}, {"exp": GONE}],
    "as a number": [{"exp": "1795319000"}, {"exp": True}, {"iat": "now"}, {"nbf": []}, {"iat": {}}],
    "session.leeway_s allows 60": [{"iat": At(900), "exp": At(1500)}, {"nbf": At(900)}],
    "sub must be": [{"sub": None}, {"sub": GONE}, {"sub": True}, {"sub": 4.5}, {"sub": ""}, {"sub": ["u1"]}],
    "sid must be": [{"sid": ""}, {"sid": False}, {"sid": {}}, {"sid": [1]}],
    "roles must be": [{"roles": [None]}, {"roles": 7}, {"roles": {}}, {"roles": [1]}, {"roles": ""}],
    "session.max_s is 604800": [
        {"exp": At(700_000)},
        {"iat": None, "exp": At(700_000)},
        {"exp": 99_999_999_999},
        {"iat": At(-604_000), "exp": At(900)},
    ],
}
"""What the log must say of these claims."""


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
async def test_a_session_as_backends_make_them(relay: Relay, changes: dict[str, Any], maker: str) -> None:
    """The session gets a token for its user, whatever harmless form its claims have."""
    payload = claims(**changes)
    answer = await relay.ask(MAKERS[maker](payload))
    assert answer.status_code == 200, answer.text
    subject = payload["sub"]
    assert claims_of(answer.json()["wsToken"])["sub"] == (
        subject if isinstance(subject, str) else str(int(subject))
    )


@pytest.mark.parametrize("changes", NOTHING_GRANTED, ids=str)
async def test_null_roles_are_none(relay: Relay, changes: dict[str, Any]) -> None:
    """The session is good, and its roles grant nothing."""
    for make in MAKERS.values():
        assert (await relay.ask(make(claims(**changes)))).status_code == 403


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("why", "changes"), [(why, changes) for why, rows in REFUSED.items() for changes in rows], ids=str
)
async def test_a_refused_session_keeps_its_cookies(
    relay: Relay, changes: dict[str, Any], why: str, maker: str
) -> None:
    """The answer is 401 without Set-Cookie, and the log says what is wrong, without the claim's value."""
    before = len(lines_with(relay, "refused"))
    answer = await relay.ask(MAKERS[maker](claims(**changes)))
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")
    assert "set-cookie" not in answer.headers
    [line] = lines_with(relay, "refused")[before:]
    assert why in line["why"]
    assert not [
        value
        for value in changes.values()
        if len(str(value)) > 7 and value != GONE and str(value) in line["why"]
    ]


async def test_a_number_and_its_text_are_one_id(relay: Relay) -> None:
    """Session 12345 and session "12345" are one session, so a log-out with one of them ends both."""
    number, text = by_pyjwt(claims(sid=12345, sub=7)), by_joserfc(claims(sid="12345", sub="7"))
    refs = [claims_of((await relay.ask(session)).json()["wsToken"])["sid"] for session in (number, text)]
    assert refs[0] == refs[1]
    assert (await relay.logout(number)).status_code == 204
    assert (await relay.ask(text)).status_code == 401


async def test_an_integer_user_id_of_another_claim(tmp_path: Path) -> None:
    """The id of djangorestframework-simplejwt is the integer `user_id`, and `require` may be a number or a boolean."""
    made = with_session(
        make_relay(tmp_path),
        f'signed = {{ algorithm = "HS256", secret = "{SECRET}", require = {{ version = 2, staff = false, w = 1.5 }} }}',
        'claims = { subject = "user_id", session = "jti" }',
    )
    made.start()
    try:
        good = {
            "user_id": 42,
            "roles": ["trader"],
            "jti": "j",
            "exp": At(600).value(),
            "version": 2,
            "staff": False,
            "w": 1.5,
        }
        answer = await made.ask(by_joserfc(good))
        assert answer.status_code == 200, answer.text
        assert claims_of(answer.json()["wsToken"])["sub"] == "42"
        assert (await made.ask(by_pyjwt(good | {"version": 2.0}))).status_code == 200
        for change in (
            {"version": 3},
            {"version": "2"},
            {"version": True},
            {"staff": 0},
            {"staff": True},
            {"w": 1},
        ):
            assert (await made.ask(by_pyjwt(good | change))).status_code == 401, change
    finally:
        made.stop()


async def test_without_a_leeway_the_clocks_must_agree(tmp_path: Path) -> None:
    """`session.leeway_s = 0` refuses a session from the future, and the relay's own tokens keep their two seconds."""
    with running(tmp_path) as strict:
        strict.stop()
        file = strict.folder / "relay.toml"
        file.write_text(file.read_text().replace("[session]\n", "[session]\nleeway_s = 0\n"))
        strict.start()
        assert (await strict.ask(by_pyjwt(claims(iat=int(time.time()) + 30)))).status_code == 401
        assert (await strict.ask(by_pyjwt(claims()))).status_code == 200
