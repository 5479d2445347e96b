"""Who asks: a browser with its cookie, or a server with a Bearer token, which may name the browser's origin."""

import httpx
import jwt
import pytest

from tests.support.raw_http import bearing, knock, post, upgrade
from tests.support.relay_process import Relay


async def ask(relay: Relay, headers: dict[str, str], body: object = None) -> httpx.Response:
    """Ask with exactly these headers."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        return await client.post(f"{relay.url}/auth/ws-token", headers=headers, json=body)


def origin_of(answer: httpx.Response) -> str:
    """Return the origin that the answer's token is bound to."""
    assert answer.status_code == 200, answer.text
    claims = jwt.decode(answer.json()["wsToken"], options={"verify_signature": False})
    return str(claims["origin"])


async def test_a_browsers_token_is_bound_to_its_origin(relay: Relay) -> None:
    """By its Origin header, or, where none comes, by a fetch of the same origin."""
    cookie = {"Cookie": f"access-token={relay.session()}"}
    assert origin_of(await ask(relay, cookie | {"Origin": relay.url})) == relay.url
    assert origin_of(await ask(relay, cookie | {"Sec-Fetch-Site": "same-origin"})) == relay.url
    assert origin_of(await ask(relay, cookie | {"X-Relay-CSRF": "1"})) == ""


async def test_a_server_may_name_the_browsers_origin(relay: Relay) -> None:
    """With a Bearer token the body's origin is taken, and without one the token is for servers."""
    bearer = {"Authorization": f"Bearer {relay.session()}"}
    assert origin_of(await ask(relay, bearer, {"origin": relay.url})) == relay.url
    assert origin_of(await ask(relay, bearer)) == ""
    assert origin_of(await ask(relay, bearer, {"origin": ""})) == ""


async def test_a_browser_may_not_name_an_origin(relay: Relay) -> None:
    """Its headers say where it is; a body that says something else is refused, also when it says the truth."""
    headers = {"Cookie": f"access-token={relay.session()}", "Origin": relay.url}
    for origin in (relay.url, "", "https://evil.example", None):
        answer = await ask(relay, headers, {"origin": origin})
        assert answer.status_code == (200 if origin is None else 400), origin


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*", "x" * 3000, 5, ["a"], {"a": 1}])
async def test_an_origin_that_the_gate_would_refuse_gets_no_token(relay: Relay, origin: object) -> None:
    """The issuer says no, because a browser can't see why the gate did."""
    bearer = {"Authorization": f"Bearer {relay.session()}"}
    answer = await ask(relay, bearer, {"origin": origin})
    assert answer.status_code == (403 if isinstance(origin, str) else 400)


async def test_the_header_wins_over_the_cookie(relay: Relay) -> None:
    """With both, the Bearer token is the session, whether it is good or not."""
    good, other = relay.session(sub="by-header"), relay.session(sub="by-cookie")
    headers = {"Cookie": f"access-token={other}", "Origin": relay.url}
    answer = await ask(relay, headers | {"Authorization": f"Bearer {good}"})
    assert jwt.decode(answer.json()["wsToken"], options={"verify_signature": False})["sub"] == "by-header"
    assert (await ask(relay, headers | {"Authorization": "Bearer garbage"})).status_code == 401


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic eA==", "Token x", "Bearer a b", "x"])
async def test_an_authorization_that_is_no_bearer_token_is_refused(relay: Relay, value: str) -> None:
    """It never falls back to the cookie: who sends the header means it."""
    cookie = ("Cookie", f"access-token={relay.session()}")
    answer = await post(relay, "/auth/ws-token", [cookie, ("Origin", relay.url), ("Authorization", value)])
    assert (answer.status, answer.code) == (401, "invalid_session")


async def test_two_authorization_headers_are_refused(relay: Relay) -> None:
    """Which of the two a proxy or a framework takes is chance, so neither counts."""
    bearer = ("Authorization", f"Bearer {relay.session()}")
    answer = await post(relay, "/auth/ws-token", [bearer, bearer, ("Origin", relay.url)])
    assert (answer.status, answer.code) == (401, "invalid_session")


async def test_a_scoped_token_buys_nothing(relay: Relay) -> None:
    """It is no session: a token that leaked can't be changed into fresh ones for ever."""
    token = await relay.token()
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"Cookie": f"access-token={token}", "Origin": relay.url},
    ):
        assert (await ask(relay, headers)).status_code == 401
    assert (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status == 101


async def test_a_session_opens_no_socket(relay: Relay) -> None:
    """The access token is not accepted by the gate, in whichever way it comes."""
    session = relay.session()
    assert (await knock(relay, fields=[*upgrade(relay), bearing(session)])).status == 401
    assert (await knock(relay, f"/ws/prices?token={session}")).status == 401
    fields = [*upgrade(relay), ("Authorization", f"Bearer {session}"), ("Cookie", f"access-token={session}")]
    assert (await knock(relay, fields=fields)).status == 101, "no token yet: one is waited for"
