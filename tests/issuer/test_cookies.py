"""What POST /auth/ws-token does to the cookies when it refuses, and the log line of each refusal."""

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey

from tests.support.cleared_cookies import cleared
from tests.support.logs import lines_with
from tests.support.raw_http import post
from tests.support.relay_process import SECRET, Relay

ACCESS = {"access-token"}
BOTH = {"access-token", "refresh-token"}
OTHER_SECRET = "another secret of the backend, which has 32 bytes"


def now() -> int:
    return int(time.time())


def claims(**changes: Any) -> dict[str, Any]:
    """Return a session's claims; None leaves one out."""
    whole = {
        "sub": "u1",
        "roles": ["trader"],
        "sid": "s",
        "token_use": "access",
        "iat": now(),
        "exp": now() + 600,
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def by_pyjwt(secret: str = SECRET, **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm="HS256")


def by_joserfc(secret: str = SECRET, **changes: Any) -> str:
    return joserfc_jwt.encode({"alg": "HS256"}, claims(**changes), OctKey.import_key(secret))


REFUSED: list[tuple[str, Callable[[], str], set[str], str, str]] = [
    # the name, the session's cookie, the cookies that are cleared, and the reason and the setting in the log
    ("another key, PyJWT", lambda: by_pyjwt(OTHER_SECRET), ACCESS, "session_invalid", "session.signed"),
    ("another key, joserfc", lambda: by_joserfc(OTHER_SECRET), ACCESS, "session_invalid", "session.signed"),
    (
        "a refresh token",
        lambda: by_joserfc(token_use="refresh"),
        ACCESS,
        "session_invalid",
        "session.signed.require",
    ),
    (
        "expired",
        lambda: by_pyjwt(iat=now() - 900, exp=now() - 90),
        ACCESS,
        "session_expired",
        "session.leeway_s",
    ),
    ("expired, joserfc", lambda: by_joserfc(exp=now() - 90), ACCESS, "session_expired", "session.leeway_s"),
    ("no token", lambda: "garbage", set(), "session_invalid", ""),
    ("no base64url", lambda: "a.b.c", set(), "session_invalid", ""),
    ("no purpose", lambda: by_pyjwt(token_use=None), set(), "session_invalid", "session.signed.require"),
    ("not yet valid", lambda: by_pyjwt(nbf=now() + 900), set(), "session_invalid", ""),
    ("made in the future", lambda: by_joserfc(iat=now() + 900), set(), "session_invalid", ""),
    ("no user", lambda: by_pyjwt(sub=""), set(), "session_invalid", ""),
    ("odd roles", lambda: by_pyjwt(roles=7), set(), "session_invalid", ""),
    ("an end that is no time", lambda: by_pyjwt(exp=None), set(), "session_invalid", ""),
]


@pytest.mark.parametrize(
    ("cookie", "names", "reason", "setting"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_a_refusal_clears_what_can_never_be_accepted_again(
    relay: Relay, cookie: Callable[[], str], names: set[str], reason: str, setting: str
) -> None:
    """Each refusal is 401, clears the cookies of its cause, and is one line at info with reason and setting."""
    text = cookie()
    before = len(lines_with(relay, "refused"))
    refresh = "" if reason == "session_expired" else "; refresh-token=r"  # with both, the session is renewed
    answer = await relay.ask(headers={"Cookie": f"access-token={text}{refresh}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")
    assert cleared(answer.headers.get_list("set-cookie")) == names
    [line] = lines_with(relay, "refused")[before:]
    assert line["level"] == "info"
    assert (line["action"], line["reason"]) == ("token.denied", reason)
    assert line["setting"] == setting or (not setting and line["setting"])
    assert not [part for part in text.split(".") if len(part) > 8 and part in str(line)]


async def test_a_revoked_session_loses_both_cookies(relay: Relay) -> None:
    """The relay knows that such a session has ended, so no refresh must bring it back."""
    session = by_joserfc(sid="revoked-at-the-issuer")
    assert (await relay.logout(session)).status_code == 204
    answer = await relay.ask(headers={"Cookie": f"access-token={session}; refresh-token=r"})
    assert answer.status_code == 401
    assert cleared(answer.headers.get_list("set-cookie")) == BOTH


async def test_a_refusal_of_anything_else_clears_nothing(relay: Relay) -> None:
    """No cookie is cleared for a header that was refused, or for a refused request."""
    for headers in (
        {"Authorization": "Bearer garbage"},
        {"Authorization": f"Bearer {by_pyjwt(OTHER_SECRET)}"},
        {"Origin": "https://evil.example"},
    ):
        answer = await relay.ask(headers=headers)
        assert answer.status_code in (401, 403)
        assert "set-cookie" not in answer.headers
    for answer in (await relay.ask_as({"endpoint": "nowhere"}), await relay.ask_as(roles=["nobody"])):
        assert answer.status_code in (400, 403)
        assert "set-cookie" not in answer.headers


async def test_a_scoped_token_in_the_cookie_is_cleared(relay: Relay) -> None:
    """A scoped token is of another kind, whatever its signature."""
    answer = await relay.ask(await relay.token())
    assert cleared(answer.headers.get_list("set-cookie")) == ACCESS


async def test_two_values_clear_nothing(relay: Relay) -> None:
    """Clearing takes only the application's own cookie, and the planted one would be left alone."""
    fields = [
        ("Origin", relay.url),
        ("Cookie", f"access-token={by_pyjwt()}; access-token={by_joserfc(sid='t')}"),
    ]
    answer = await post(relay, "/auth/ws-token", fields)
    assert (answer.status, answer.all("set-cookie")) == (401, [])
