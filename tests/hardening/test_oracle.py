"""Errors as an oracle, and every forged token: whatever is wrong with it, the refusal says the same."""

import time

import pytest

from tests.support.forged_tokens import claims, forged, signed
from tests.support.raw_http import OVER_EACH_TRANSPORT, Opening, bearing, knock, post, upgrade
from tests.support.relay_process import Relay


@pytest.fixture(scope="module")
def used(relay: Relay) -> dict[str, str]:
    """The forgeries, made once: none may ever work."""
    return forged(relay)


@OVER_EACH_TRANSPORT
async def test_the_forge_itself_is_good(relay: Relay, opening: Opening) -> None:
    """What `signed` and `claims` make unchanged is accepted, so the refusals below are about the changes."""
    answer = await knock(
        relay, fields=[*opening.request(relay), opening.bearing(signed(relay, claims(relay)))]
    )
    assert answer.status == opening.status


@OVER_EACH_TRANSPORT
async def test_all_bad_tokens_get_one_answer(relay: Relay, used: dict[str, str], opening: Opening) -> None:
    """One status, one body and the same headers for each forgery, and for a token that was used before."""
    replayed = await relay.token()
    assert (
        await knock(relay, fields=[*opening.request(relay), opening.bearing(replayed)])
    ).status == opening.status
    answers = {
        kind: await knock(relay, fields=[*opening.request(relay), opening.bearing(token)])
        for kind, token in (used | {"replayed": replayed}).items()
    }
    assert {kind: answer.status for kind, answer in answers.items() if answer.status != 401} == {}
    assert len({(answer.body, answer.fields) for answer in answers.values()}) == 1


@OVER_EACH_TRANSPORT
async def test_a_revoked_sessions_token_gets_that_answer_too(relay: Relay, opening: Opening) -> None:
    """After the log-out its unused token is refused like any bad one; the audit log knows better."""
    session = relay.session()
    token = await relay.token(session)
    cookie = [("Cookie", f"access-token={session}"), ("Origin", relay.url)]
    assert (await post(relay, "/api/auth/logout", cookie)).status == 204
    answer = await knock(relay, fields=[*opening.request(relay), opening.bearing(token)])
    assert answer == await knock(relay, fields=[*opening.request(relay), opening.bearing("garbage")])
    await relay.audited("connect.denied", reason="session_revoked")


async def test_the_log_tells_what_the_answer_does_not(relay: Relay) -> None:
    """Each kind of refusal has its own reason in the audit log."""
    now = int(time.time())
    for reason, token in {
        "token_signature": signed(relay, claims(relay))[:-8] + "AAAAAAAA",
        "token_expired": signed(relay, claims(relay, iat=now - 60, nbf=now - 60, exp=now - 30)),
        "token_key_unknown": signed(relay, claims(relay), {"kid": "nobody"}),
        "token_header": signed(relay, claims(relay), {"jku": "x"}),
        "token_lifetime": signed(relay, claims(relay, exp=now + 3600)),
        "token_malformed": "garbage",
    }.items():
        await knock(relay, fields=[*upgrade(relay), bearing(token)])
        await relay.audited("connect.denied", reason=reason)


@OVER_EACH_TRANSPORT
@pytest.mark.parametrize(
    "audience",
    [
        "{stream}/ws/prices/",
        "{stream}/ws/price",
        "{stream}/ws/depth",
        "{stream}",
        "{stream}/ws/PRICES",
        "{stream}//ws/prices",
        "ws://127.0.0.1:80/ws/prices",
        "wss{stream_rest}/ws/prices",
        "*",
    ],
)
async def test_an_audience_is_one_exact_text(relay: Relay, audience: str, opening: Opening) -> None:
    """A token for anything else is 403 (it is for another endpoint), and is not used up by the attempt."""
    text = audience.format(stream=relay.stream_url, stream_rest=relay.stream_url.removeprefix("ws"))
    answer = await knock(
        relay, fields=[*opening.request(relay), opening.bearing(signed(relay, claims(relay, aud=text)))]
    )
    assert (answer.status, answer.code) == (403, "forbidden")


@OVER_EACH_TRANSPORT
async def test_clocks_may_differ_by_two_seconds(relay: Relay, opening: Opening) -> None:
    """A token that ends now still works, one that ended seconds ago does not; the same for its start."""
    good = opening.status
    for shift, status in ((-30, good), (-34, 401), (-90, 401), (1, good), (10, 401), (60, 401)):
        now = int(time.time()) + shift
        token = signed(relay, claims(relay, iat=now, nbf=now, exp=now + 30))
        assert (
            await knock(relay, fields=[*opening.request(relay), opening.bearing(token)])
        ).status == status, shift
