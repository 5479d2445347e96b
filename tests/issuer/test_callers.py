"""Callers of the issuer: a browser with its cookie, or a server with a Bearer token that may name an origin."""

import jwt
import pytest

from tests.support.raw_http import Answer, ask, bearing, knock, post, upgrade
from tests.support.relay_process import Relay


def origin_of(answer: Answer) -> str:
    """Return the origin that the answer's token is bound to."""
    assert answer.status == 200, answer.body
    claims = jwt.decode(answer.json["wsToken"], options={"verify_signature": False})
    return str(claims["origin"])


async def test_a_browsers_token_is_bound_to_its_origin(relay: Relay) -> None:
    """The origin is the Origin header, or public.url if a same-origin fetch has no such header."""
    cookie = {"Cookie": f"access-token={relay.session()}"}
    assert origin_of(await ask(relay, headers=cookie | {"Origin": relay.url})) == relay.url
    assert origin_of(await ask(relay, headers=cookie | {"Sec-Fetch-Site": "same-origin"})) == relay.url
    assert origin_of(await ask(relay, headers=cookie | {"X-Relay-CSRF": "1"})) == ""


async def test_a_server_may_name_the_browsers_origin(relay: Relay) -> None:
    """With a Bearer token the origin of the body counts; without an origin the token is for servers."""
    bearer = {"Authorization": f"Bearer {relay.session()}"}
    assert origin_of(await ask(relay, {"origin": relay.url}, headers=bearer)) == relay.url
    assert origin_of(await ask(relay, headers=bearer)) == ""
    assert origin_of(await ask(relay, {"origin": ""}, headers=bearer)) == ""


async def test_a_browser_may_not_name_an_origin(relay: Relay) -> None:
    """An origin in the body of a browser's request is refused, even if it is the browser's own one."""
    headers = {"Cookie": f"access-token={relay.session()}", "Origin": relay.url}
    for origin in (relay.url, "", "https://evil.example", None):
        answer = await ask(relay, {"origin": origin}, headers=headers)
        assert answer.status == (200 if origin is None else 400), origin


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*", "x" * 3000, 5, ["a"], {"a": 1}])
async def test_an_origin_that_the_gate_would_refuse_gets_no_token(relay: Relay, origin: object) -> None:
    """The issuer refuses it, because a browser could not see why the gate refuses."""
    bearer = {"Authorization": f"Bearer {relay.session()}"}
    answer = await ask(relay, {"origin": origin}, headers=bearer)
    assert answer.status == (403 if isinstance(origin, str) else 400)


async def test_the_header_wins_over_the_cookie(relay: Relay) -> None:
    """If both are sent, the Bearer token is the session, even if it is invalid."""
    good, other = relay.session(sub="by-header"), relay.session(sub="by-cookie")
    headers = {"Cookie": f"access-token={other}", "Origin": relay.url}
    answer = await ask(relay, headers=headers | {"Authorization": f"Bearer {good}"})
    assert jwt.decode(answer.json["wsToken"], options={"verify_signature": False})["sub"] == "by-header"
    assert (await ask(relay, headers=headers | {"Authorization": "Bearer garbage"})).status == 401


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic eA==", "Token x", "Bearer a b", "x"])
async def test_an_authorization_that_is_no_bearer_token_is_refused(relay: Relay, value: str) -> None:
    """The cookie is never used instead of a header."""
    cookie = ("Cookie", f"access-token={relay.session()}")
    answer = await post(relay, "/auth/ws-token", [cookie, ("Origin", relay.url), ("Authorization", value)])
    assert (answer.status, answer.code) == (401, "invalid_session")


async def test_two_authorization_headers_are_refused(relay: Relay) -> None:
    """Neither header counts, because proxies and frameworks differ in which one they use."""
    bearer = ("Authorization", f"Bearer {relay.session()}")
    answer = await post(relay, "/auth/ws-token", [bearer, bearer, ("Origin", relay.url)])
    assert (answer.status, answer.code) == (401, "invalid_session")


async def test_a_scoped_token_buys_nothing(relay: Relay) -> None:
    """A scoped token is not a session: a leaked one can't be exchanged for new ones."""
    token = await relay.token()
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"Cookie": f"access-token={token}", "Origin": relay.url},
    ):
        assert (await ask(relay, headers=headers)).status == 401
    assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101


async def test_a_session_opens_no_socket(relay: Relay) -> None:
    """The gate does not accept the access token, by any transport."""
    session = relay.session()
    assert (await knock(relay, fields=[*upgrade(relay), bearing(session)])).status == 401
    assert (await knock(relay, f"/ws/prices?token={session}")).status == 401
    fields = [*upgrade(relay), ("Authorization", f"Bearer {session}"), ("Cookie", f"access-token={session}")]
    assert (await knock(relay, fields=fields)).status == 101, "no token yet: one is waited for"
