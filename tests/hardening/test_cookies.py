"""Cookie tossing and session fixation: a cookie that somebody else planted is noticed, and outlived."""

from http.cookies import SimpleCookie

import jwt
import pytest

from tests.support.raw_http import Answer, post
from tests.support.relay_process import SECRET, Relay

LOGIN = b'{"email":"demo@example.com","password":"demo"}'


async def ask(relay: Relay, *cookies: str) -> Answer:
    """Ask for a token from the own page with these Cookie headers."""
    return await post(
        relay, "/auth/ws-token", [("Origin", relay.url), *(("Cookie", value) for value in cookies)]
    )


async def test_two_cookies_of_one_name_are_refused(relay: Relay) -> None:
    """Whichever of the two is good and wherever they stand: 401, because which one is read would be chance.

    The answer says the way out, which is a log-out.
    """
    mine, planted = relay.session(sub="victim"), relay.session(sub="attacker")
    for cookies in (
        [f"access-token={mine}; access-token={planted}"],
        [f"access-token={planted}; access-token={mine}"],
        [f"access-token={mine}; access-token=x"],
        [f"access-token={mine};access-token ={planted}"],
        [f"access-token={mine}", f"access-token={planted}"],
        [f"a=b; access-token={planted}", f"c=d; access-token={mine}"],
    ):
        answer = await ask(relay, *cookies)
        assert (answer.status, answer.code) == (401, "invalid_session"), cookies
        assert "Log out, which clears both" in answer.json["message"]


async def test_one_value_is_no_doubt(relay: Relay) -> None:
    """The same value twice is one cookie, and an empty one is none: browsers and proxies really send both."""
    mine = relay.session(sub="sent-twice")
    for cookies in (
        [f"access-token={mine}; a=b; access-token={mine}"],
        [f"access-token={mine}", f"access-token={mine}"],
        [f"access-token=; access-token={mine}"],
        [f"access-token={mine}; access-token="],
        [f'access-token={mine}; access-token=""'],
        [f"access-token.0={mine[:50]}; access-token.1={mine[50:]}"],
    ):
        assert (await ask(relay, *cookies)).status == 200, cookies


async def test_a_planted_cookie_never_stands_alone(relay: Relay) -> None:
    """The refusal clears no cookie: it could only take the own one, and the planted one would then be the session."""
    answer = await ask(relay, f"access-token={relay.session()}; access-token={relay.session()}")
    assert answer.all("set-cookie") == []


@pytest.mark.parametrize("space", ["\xa0", "\x85", "\x1f"])
async def test_white_space_outside_of_ascii_belongs_to_the_name(relay: Relay, space: str) -> None:
    """A browser keeps "\\xa0__Host-name" for a sibling site, without what the prefix stands for."""
    mine = relay.session()
    for cookie in (f"{space}access-token={mine}", f"access-token{space}={mine}"):
        answer = await ask(relay, cookie)
        assert answer.status in (400, 401), cookie
    answer = await ask(relay, f"{space}access-token=planted; access-token={mine}")
    assert answer.status in (200, 400)
    assert (await ask(relay, f" access-token={mine} ; a=b")).status == 200


async def test_names_are_compared_exactly(relay: Relay) -> None:
    """Cookies with a similar name are others: they neither are the session nor count as a second one."""
    mine = relay.session()
    others = "Access-Token=x; access-token2=x; xaccess-token=x; access-token.sig=x"
    assert (await ask(relay, f"{others}; access-token={mine}")).status == 200
    assert (await ask(relay, others)).status == 401


async def test_garbage_cookies_are_refused_in_peace(relay: Relay) -> None:
    """Whatever bytes a cookie has, the answer is 401 and not an error of ours."""
    for value in (
        "access-token",
        "access-token=",
        "=;=;;;  ;",
        "access-token=" + "a." * 2000,
        "access-token=\x80\xff",
        'access-token="',
        "access-token=eyJhbGciOiJub25lIn0.e30.",
        "access-token=" + "a" * 20_000,
        "; ".join(f"a{index}=b" for index in range(200)),
    ):
        answer = await ask(relay, value)
        assert (answer.status, answer.code) == (401, "invalid_session"), value[:40]


async def test_a_preset_session_dies_at_log_in(relay: Relay) -> None:
    """A session that was planted before the log-in is not the one after it (session fixation)."""
    preset = relay.session(sid="preset")
    answer = await post(
        relay,
        "/api/auth/login",
        [
            ("Origin", relay.url),
            ("Content-Type", "application/json"),
            ("Cookie", f"access-token={preset}; refresh-token={preset}"),
        ],
        body=LOGIN,
    )
    assert answer.status == 200
    for header in answer.all("set-cookie"):
        [morsel] = SimpleCookie(header).values()
        claims = jwt.decode(morsel.value, SECRET, algorithms=["HS256"])
        assert claims["sid"] != "preset"
